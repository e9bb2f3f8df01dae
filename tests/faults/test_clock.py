"""The machine's clock jumps while everything runs, forwards and back: no row differs.

All parts are started under libfaketime, which reads the offset from a file.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.faults import CHECKPOINT_SECONDS
from tests.faults.scene import BACK_SECONDS, Scene
from tests.harness import environment, wait_for
from tests.own_stack import own_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_LIBRARIES = [
    Path(f"/usr/lib/{place}faketime/libfaketimeMT.so.1") for place in ("x86_64-linux-gnu/", "")
]
_HOUR_MS = 3_600_000


class Clock:
    """The clock of all that was started with `environment`."""

    def __init__(self, file: Path) -> None:
        library = next((one for one in _LIBRARIES if one.exists()), None)
        if library is None:
            pytest.fail("This test needs libfaketime: apt-get install libfaketime")
        self._file = file
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            # A wait must not end before its time, as none does where a machine's clock is set.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, hours: float) -> None:
        """Let it be so many hours later than it is."""
        self._file.write_text(f"{hours:+g}h\n")


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    tmp_path.chmod(0o755)
    return Clock(tmp_path / "offset")


@pytest.fixture
def scene(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with own_stack() as stack:
        with monkeypatch.context() as faked:
            for name, value in clock.environment.items():
                faked.setenv(name, value)
            stack.up()
        with environment(stack) as env:
            found = Scene(stack, env, random.Random(9))
            found.begin(checkpoint_timeout_seconds=CHECKPOINT_SECONDS)
            yield found


def test_a_clock_that_jumps_changes_no_row(scene: Scene, clock: Clock) -> None:
    for offset in (2.0, -1.0):
        with scene.under_way(8_000):
            clock.set(offset)
            wait_for(
                lambda offset=offset: round(ahead_ms(scene) / _HOUR_MS, 1),
                BACK_SECONDS,
                "Flink's clock has jumped",
                until=lambda found, offset=offset: found == offset,
            )
            threading.Event().wait(10)


def ahead_ms(scene: Scene) -> float:
    """Return how far the JobManager's clock is ahead of this process's."""
    answer = httpx.get(f"{scene.env.settings.flink}/jobs/overview", timeout=10).json()
    [job] = [one for one in answer["jobs"] if one["name"] == scene.env.job_name]
    # What Flink gives as the duration of a job that runs ends now, by its clock.
    now = job["start-time"] + job["duration"]
    return float(now) - time.time() * 1000
