"""Close connections that take too long to say what they want."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 10.0


class PatientProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with a limit on the time from a connection to its whole request.

    uvicorn itself limits the silence after an answer only, so a client could hold a connection
    open for ever with half a request.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request on a connection that had one before."""
        super().on_message_begin()
        if self._timer is None:
            self._wait()

    def on_message_complete(self) -> None:
        """Wait no more: the request is there, or the connection becomes a WebSocket's."""
        super().on_message_complete()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more: the client left."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
