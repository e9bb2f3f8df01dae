"""Resident memory of a stack's processes over a run that restarts them: does it grow?

One that was just started is small and fills its heap, which is no growth. So what is compared is
the median of a run's first third with that of its last one, of processes that have run for a while.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from statistics import linear_regression, median

import psutil

from deploy.processes import members
from deploy.stack import Stack
from tests.harness import Environment, is_python_worker

WARM_UP_MINUTES = 2.0
"""For how long after its start a process is left out of the comparison."""

_SAMPLE_SECONDS = 5.0
_MIB = 2**20
_WORKERS = "Python workers"


@dataclass(frozen=True)
class Sample:
    """What the processes of one name held at a moment of the run.

    `leader` is the pid of the oldest of them, which has run for `age` minutes.
    """

    minute: float
    mib: float
    leader: int
    age: float


@dataclass(frozen=True)
class Growth:
    """How memory went over a run, in MiB; None where nothing ran for long enough.

    `longest` is for how many minutes the longest of its lives was watched, and `slope` the growth
    in it a minute.
    """

    restarts: int
    first_third: float | None
    last_third: float | None
    longest: float
    slope: float | None

    @property
    def grown(self) -> float | None:
        """What the last third has more than the first."""
        if self.first_third is None or self.last_third is None:
            return None
        return self.last_third - self.first_third


def growth(samples: Sequence[Sample], minutes: float, warm_up: float = WARM_UP_MINUTES) -> Growth:
    """Return how memory went in a run of so many minutes; there is at least one sample."""
    warm = [one for one in samples if one.age >= warm_up]
    life = max(lives(samples), key=_watched)
    return Growth(
        restarts=sum(one.leader != other.leader for one, other in pairwise(samples)),
        first_third=_median(one for one in warm if one.minute < minutes / 3),
        last_third=_median(one for one in warm if one.minute >= minutes * 2 / 3),
        longest=_watched(life),
        slope=_slope([one for one in life if one.age >= warm_up]),
    )


def lives(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples from each restart to the next."""
    return [list(life) for _, life in groupby(samples, lambda one: one.leader)]


def _watched(life: Sequence[Sample]) -> float:
    return life[-1].minute - life[0].minute


def _median(samples: Iterator[Sample]) -> float | None:
    found = [one.mib for one in samples]
    return median(found) if found else None


def _slope(life: Sequence[Sample]) -> float | None:
    if len(life) < 3:
        return None
    return linear_regression([one.minute for one in life], [one.mib for one in life]).slope


@dataclass
class Memory:
    """Samples of each part of a stack, its Python workers and the loader, from `began` on."""

    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.time)

    def watch(self, stack: Stack, env: Environment, ended: threading.Event) -> None:
        """Note every five seconds what all of them hold."""
        while not ended.wait(_SAMPLE_SECONDS):
            for name, processes in _processes(stack, env):
                sample = _sample(processes, time.time(), self.began)
                if sample is not None:
                    self.samples[name].append(sample)

    @property
    def minutes(self) -> float:
        """How long the run was."""
        return max((each[-1].minute for each in self.samples.values()), default=0.0)

    def growths(self) -> dict[str, Growth]:
        """Return how the memory of each went, by name."""
        return {name: growth(each, self.minutes) for name, each in sorted(self.samples.items())}


def _processes(stack: Stack, env: Environment) -> Iterator[tuple[str, list[psutil.Process]]]:
    for part in stack.parts:
        if part.name == "loader":
            continue
        found = members(stack.place.home, [part.name])
        workers = [one for one in found if part.name == "taskmanager" and is_python_worker(one)]
        yield part.name, [one for one in found if one not in workers]
        if workers:
            yield _WORKERS, workers
    loader = env.loader
    if loader is not None:
        with suppress(psutil.NoSuchProcess):
            yield "loader", [psutil.Process(loader.pid)]


def _sample(processes: Sequence[psutil.Process], now: float, began: float) -> Sample | None:
    seen: list[tuple[float, int, int]] = []
    for process in processes:
        with suppress(psutil.Error):
            seen.append((process.create_time(), process.pid, process.memory_info().rss))
    held = sum(rss for *_, rss in seen)
    if not held:
        return None
    created, leader, _ = min(seen)
    return Sample((now - began) / 60, held / _MIB, leader, (now - created) / 60)
