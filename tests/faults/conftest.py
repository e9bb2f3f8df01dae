"""A stack that faults may happen to, and that is gone before other tests' comes up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from tests.own_stack import own_stack, shown
from tests.sinks.loading import Sandbox, sandbox_on


@pytest.fixture(scope="package")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Return a running stack for faults alone: what is left of them is no other test's to bear."""
    with own_stack() as own, shown(request.config, own):
        own.up()
        yield own


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[Sandbox]:
    with sandbox_on(stack) as found:
        yield found
