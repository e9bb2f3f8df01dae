"""A fault at a time: nothing is lost, nothing doubled, and everything goes on."""

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

# With every change, one after the other within a round, which by itself takes longer than they do.
# The others take longer, or are brought about by the random program or a test of their own.
_WITH_EVERY_CHANGE = (
    ("kill_jobmanager",),
    ("kill_python_worker", "strange_records"),
    ("kill_broker", "kill_postgres"),
    ("kill_registry", "kill_clickhouse"),
)
_ROUNDS = (*_WITH_EVERY_CHANGE, *((name,) for name in FAULTS if (name,) not in _WITH_EVERY_CHANGE))


def marked(names: tuple[str, ...]) -> object:
    """Return a round's faults as a parameter, marked where it is not for every change."""
    marks = () if names in _WITH_EVERY_CHANGE else (pytest.mark.long,)
    return pytest.param(names, marks=marks, id="+".join(names))


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    """Return a job under way; each fault comes on top of what the last one left."""
    with environment(stack) as env:
        found = Scene(stack, env, random.Random(1))
        found.begin(checkpoint_timeout_seconds=CHECKPOINT_SECONDS)
        yield found


@pytest.mark.parametrize("names", [marked(names) for names in _ROUNDS])
def test_a_fault_leaves_no_trace(scene: Scene, names: tuple[str, ...]) -> None:
    began = time.monotonic()
    with scene.under_way():
        for name in names:
            FAULTS[name](scene)
        over = time.monotonic()
    print(
        f"{', '.join(names)}: over after {over - began:.0f} s, "
        f"all right after {time.monotonic() - began:.0f}"
    )
