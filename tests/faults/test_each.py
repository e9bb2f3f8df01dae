"""Each fault alone: nothing is lost, nothing doubled, and everything goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from tests.faults.faults import CHECKPOINT_SECONDS, FAULTS
from tests.faults.scene import Scene
from tests.harness import environment

pytestmark = pytest.mark.timeout(1800)

# The others take longer, or are brought about by the random program or a test of their own.
_WITH_EVERY_CHANGE = {
    "kill_jobmanager",
    "kill_python_worker",
    "kill_broker",
    "kill_registry",
    "kill_clickhouse",
    "kill_postgres",
    "strange_records",
}


def marked(name: str) -> object:
    """Return the name of a fault as a parameter, marked where it is not for every change."""
    return name if name in _WITH_EVERY_CHANGE else pytest.param(name, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    """Return a job under way; each fault comes on top of what the last one left."""
    with environment(stack) as env:
        found = Scene(stack, env, random.Random(1))
        found.begin(checkpoint_timeout_seconds=CHECKPOINT_SECONDS)
        yield found


@pytest.mark.parametrize("name", [marked(name) for name in FAULTS])
def test_a_fault_leaves_no_trace(scene: Scene, name: str) -> None:
    began = time.monotonic()
    with scene.under_way():
        FAULTS[name](scene)
        over = time.monotonic()
    print(
        f"{name}: over after {over - began:.0f} s, all right after {time.monotonic() - began:.0f}"
    )
