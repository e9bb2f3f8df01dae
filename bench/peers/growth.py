"""When the committed rows of topics last grew, whoever reads them later."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

_EVERY_SECONDS = 0.25
_TIMEOUT_SECONDS = 20.0


class Growth:
    """A thread that looks where topics end for readers of committed records.

    Reading and decoding rows takes longer than that, and would count as the time of who wrote them.
    """

    def __init__(self, bootstrap: str, topics: Iterable[str]) -> None:
        from confluent_kafka.admin import AdminClient

        self._admin: Any = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._places = self._partitions(list(topics))
        self._ends: dict[Any, int] = {}
        self._changed = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def last(self) -> float:
        """Return the monotonic clock when rows were last seen to be more."""
        self._look()
        return self._changed

    @property
    def changed(self) -> float:
        """The clock when rows were last seen to be more, without another look."""
        return self._changed

    def _run(self) -> None:
        from confluent_kafka import KafkaException

        while not self._stop.wait(_EVERY_SECONDS):
            # A look that failed saw nothing.
            with suppress(KafkaException, TimeoutError):
                self._look()

    def _look(self) -> None:
        from confluent_kafka import IsolationLevel
        from confluent_kafka.admin import OffsetSpec

        with self._lock:
            answers = self._admin.list_offsets(
                {place: OffsetSpec.latest() for place in self._places},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_TIMEOUT_SECONDS,
            )
            ends = {place: answer.result().offset for place, answer in answers.items()}
            if ends != self._ends:
                self._ends, self._changed = ends, time.monotonic()

    def _partitions(self, topics: list[str]) -> list[Any]:
        from confluent_kafka import TopicPartition

        known = self._admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        return [TopicPartition(name, part) for name in topics for part in known[name].partitions]
