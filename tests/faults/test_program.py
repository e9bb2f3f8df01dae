"""Faults at random, again and again: `make faults SEED=… MINUTES=…`."""

from __future__ import annotations

import os
import random
import time

import psutil
import pytest

from deploy.processes import members
from deploy.stack import Stack
from tests.faults.faults import CHECKPOINT_SECONDS, FAULTS
from tests.faults.scene import Scene
from tests.harness import environment

SEED = int(os.environ.get("KAPPA_FAULT_SEED", "1"))
MINUTES = float(os.environ.get("KAPPA_FAULT_MINUTES", "1"))


@pytest.mark.timeout(MINUTES * 60 + 1800)
def test_random_faults_leave_no_trace(stack: Stack) -> None:
    chance = random.Random(SEED)
    happened: list[str] = []
    with environment(stack) as env:
        scene = Scene(stack, env, chance)
        scene.begin(checkpoint_timeout_seconds=CHECKPOINT_SECONDS)
        ends = time.monotonic() + MINUTES * 60
        while not happened or time.monotonic() < ends:
            names = chance.sample(sorted(FAULTS), chance.choice((1, 1, 2)))
            happened += names
            try:
                with scene.under_way(chance.randrange(2_000, 8_000)):
                    for name in names:
                        FAULTS[name](scene)
            except BaseException as error:
                error.add_note(f"Faults so far: {', '.join(happened)}.")
                error.add_note(f"Repeat it with: make faults SEED={SEED} MINUTES={MINUTES:g}")
                raise
            print(f"round {scene.rounds}: {', '.join(names)}: 0 differences; {_memory(stack)}")


def _memory(stack: Stack) -> str:
    """Return the resident memory of the stack's processes in MiB."""
    total = 0
    for process in members(stack.place.home):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return f"{total // 2**20:,} MiB"
