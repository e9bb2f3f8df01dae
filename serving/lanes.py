"""Read one source again and again, beside all others, and keep what it said last.

A source that is slow or down holds up nothing but its own part of the picture.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.cluster import ClusterError, ClusterUnavailable
from replay.control import ControlUnavailable
from schemas.topics import KafkaUnavailable
from serving.errors import ApiError
from sinks.clickhouse import ClickHouseFailed

_LOG = logging.getLogger("kappa.serving")
_EXPECTED = (
    ApiError,
    ClickHouseFailed,
    KafkaUnavailable,
    ClusterUnavailable,
    ClusterError,
    ControlUnavailable,
)
_IDLE_SECONDS = 5.0
# With longer ones the page would call old what is as new as can be.
_LONGEST_REST_SECONDS = 4.0


@dataclass(frozen=True)
class Reading:
    """What a lane read last: `at` is when, in epoch seconds, and 0 before the first time.

    `problem` says why the newest attempt failed; the data is then older.
    """

    data: Any = None
    at: float = 0.0
    problem: str = ""


def rest_seconds(took: float, every: float, factor: float) -> float:
    """Return how long to rest after a reading that `took` so many seconds, to read each `every`.

    Reading takes half of the time at most, however slow its source is. With a greater `factor`, a
    rest is so many times as long as the reading, as long as that is not too long to be missed.
    """
    return max(every - took, took, min(factor * took, _LONGEST_REST_SECONDS))


class Lane(threading.Thread):
    """A thread that calls `read` each `every` seconds while somebody watches, less often if not."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Any],
        every: float,
        watched: Callable[[], bool],
        took: Callable[[str, float, bool], None],
        rest_factor: float = 1.0,
    ) -> None:
        super().__init__(name=f"lane-{name}", daemon=True)
        self.section = name
        self.reading = Reading()
        self._read = read
        self._every = every
        self._watched = watched
        self._took = took
        self._rest_factor = rest_factor
        self._wake = threading.Event()
        self._ended = threading.Event()

    def run(self) -> None:
        """Go on until `end`."""
        while not self._ended.is_set():
            began = time.monotonic()
            self._once()
            seconds = time.monotonic() - began
            self._took(self.section, seconds, not self.reading.problem)
            pace = self._every if self._watched() else max(self._every, _IDLE_SECONDS)
            self._wake.clear()
            self._wake.wait(rest_seconds(seconds, pace, self._rest_factor))

    def hurry(self) -> None:
        """Read again at once."""
        self._wake.set()

    def end(self) -> None:
        """Stop after the reading that is under way."""
        self._ended.set()
        self._wake.set()

    def _once(self) -> None:
        try:
            self.reading = Reading(self._read(), time.time())
        except _EXPECTED as error:
            self._failed(str(error))
        except Exception as error:
            _LOG.exception("reading %s failed", self.section)
            self._failed(f"Reading {self.section} failed: {type(error).__name__}.")

    def _failed(self, problem: str) -> None:
        if problem != self.reading.problem:
            _LOG.warning("%s: %s", self.section, problem)
        self.reading = Reading(self.reading.data, self.reading.at, problem)
