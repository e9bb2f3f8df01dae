"""A way to PostgreSQL that can be opened and shut while processes use it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Door:
    """A port of loopback that leads to the PostgreSQL of `dsn` while it is open; first it is shut.

    Whoever comes to a door that is shut is refused; whoever is through when it shuts is cut off.
    """

    def __init__(self, dsn: str) -> None:
        target = conninfo_to_dict(dsn)
        self._target = str(target["host"]), int(str(target["port"]))
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._through: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._port: int = self._holder.getsockname()[1]
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._port)

    def open(self) -> None:
        """Let everybody through from now on."""
        self._holder.close()
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Let nobody through, and cut off who is."""
        for one in (self._listener, *self._through):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._listener = None
        self._through.clear()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listener.accept()
                outer = socket.create_connection(self._target)
                self._through += [inner, outer]
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=_pump, args=pair, daemon=True).start()


@contextlib.contextmanager
def door(dsn: str) -> Iterator[Door]:
    """Give a door to the PostgreSQL of `dsn`, which is shut until it is opened."""
    found = Door(dsn)
    try:
        yield found
    finally:
        found.shut()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
