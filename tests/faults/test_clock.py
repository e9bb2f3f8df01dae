"""The machine's clock jumps while everything runs, forwards and back: no row differs.

All parts are started with `clock.c` preloaded, which reads from a file how far the clock is ahead.
libfaketime does not do: Python can't sleep under it, and librdkafka waits for the instant of the
clock that is not true.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import tempfile
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

_SOURCE = Path(__file__).with_name("clock.c")
_HOUR_MS = 3_600_000


class Clock:
    """The clock of all that was started with `environment`; `folder` is for all to read."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.fail("This test needs a C compiler: apt-get install gcc libc6-dev")
        library, self._file = folder / "clock.so", folder / "ahead"
        build = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library)]
        subprocess.run([*build, str(_SOURCE), "-ldl"], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._file)}

    def set(self, hours: float) -> None:
        """Let it be so many hours later than it is."""
        # Those who have the file before their eyes must see all eight bytes of it at any time.
        with self._file.open("r+b" if self._file.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", round(hours * 3600)))


@pytest.fixture
def clock() -> Iterator[Clock]:
    with tempfile.TemporaryDirectory(prefix="kappa-clock-") as folder:
        Path(folder).chmod(0o755)
        yield Clock(Path(folder))


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
