"""A namespace for each test that loads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from tests.sinks.loading import Sandbox, sandbox_on


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[Sandbox]:
    with sandbox_on(stack) as found:
        yield found
