"""Close connections that take too long to say what they want, or to take what they get."""

from __future__ import annotations

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 10.0
UNREAD_SECONDS = 30.0


class PatientProtocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with a limit on the time from a connection to its whole request.

    uvicorn itself limits the silence after an answer only, so a client could hold a connection
    open for ever with half a request; or with an answer that it never reads, since a connection
    with something to write is closed after that only. A WebSocket's begins here, too.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        _end_if_unread(transport)
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


def _end_if_unread(transport: asyncio.Transport) -> None:
    """Let the system end the connection where what was sent is not taken, as far as it can."""
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        limit_ms = round(UNREAD_SECONDS * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
