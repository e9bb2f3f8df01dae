"""Cancel queries whose clients have gone, as `cancel_http_readonly_queries_on_client_close`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy.clickhouse_endpoint.errors import QueryError
from deploy.clickhouse_endpoint.messages import Wire

_log = logging.getLogger(__name__)


class Watch:
    """Running queries and the connections of their clients, looked at every `seconds`."""

    def __init__(self, cancel: Callable[[str], None], seconds: float = 0.5) -> None:
        self._cancel = cancel
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: dict[str, Wire] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    @contextmanager
    def over(self, tag: str, wire: Wire) -> Iterator[None]:
        """Watch the query on the connection `tag` for as long as the block runs."""
        with self._lock:
            self._running[tag] = wire
        try:
            yield
        finally:
            # Waits for a cancel under way: it must not hit the connection's next query.
            with self._lock:
                self._running.pop(tag, None)

    def _look(self) -> None:
        while not self._stop.wait(self._seconds):
            with self._lock:
                gone = [tag for tag, wire in self._running.items() if wire.gone()]
                self._cancel_all(gone)

    def cancel_all(self) -> None:
        """Cancel every query that runs now."""
        with self._lock:
            self._cancel_all(list(self._running))

    def _cancel_all(self, tags: list[str]) -> None:
        for tag in tags:
            del self._running[tag]
            try:
                self._cancel(tag)
            except QueryError as error:
                _log.warning("the query on %s can't be cancelled: %s", tag, error)

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
