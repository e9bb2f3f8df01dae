"""Namespaces on the stack, with nothing of another test in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from tests.harness import Environment, environment


@pytest.fixture
def env(stack: Stack) -> Iterator[Environment]:
    """Return a namespace of the test's own."""
    with environment(stack) as found:
        yield found


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[Environment]:
    """Return a namespace for all tests of a module; each goes on where the last one ended."""
    with environment(stack) as found:
        yield found
