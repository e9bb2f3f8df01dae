"""Each fault alone: nothing is lost, nothing doubled, and everything goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from tests.faults.faults import FAULTS
from tests.faults.scene import Scene
from tests.harness import environment

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    """Return a job under way; each fault comes on top of what the last one left."""
    with environment(stack) as env:
        found = Scene(stack, env, random.Random(1))
        found.begin()
        yield found


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_no_trace(scene: Scene, name: str) -> None:
    with scene.under_way():
        FAULTS[name](scene)
