"""The HTTP server: cheroot, one thread a request.

chDB's calls block and release the interpreter's lock, so a thread a request is what they want; an
event loop would hand every one of them to a thread all the same. cheroot keeps idle connections
in a selector, so they take no thread.
"""

from __future__ import annotations

import logging
import select
import socket
import sys
from typing import Any

from cheroot import wsgi
from cheroot.errors import MaxSizeExceeded

from deploy.clickhouse_endpoint.app import Application
from deploy.clickhouse_endpoint.errors import too_large
from deploy.clickhouse_endpoint.limits import Limits

_log = logging.getLogger(__name__)
_MAX_HEADER_BYTES = 1024 * 1024
_KEPT_CONNECTIONS = 1024
# How long a cancelled query may take to end.
_CANCEL_SECONDS = 10


class Connection:
    """The client's connection, see `messages.Wire`."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def close_after(self) -> None:
        """Close the connection when the answer is sent."""
        self._request.close_connection = True

    def break_off(self) -> None:
        """End an answer in chunks without its last one."""
        self._request.close_connection = True
        self._request.broken_off = True

    def gone(self) -> bool:
        """Return whether the client has closed the connection."""
        connection: socket.socket = self._request.conn.socket
        try:
            poll = select.poll()
            poll.register(connection, select.POLLIN | select.POLLRDHUP)
            if not poll.poll(0):
                return False
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, ValueError):
            return True


class _Body:
    """A request's body; raises QueryError when it is longer than the server takes."""

    def __init__(self, body: Any, limit_bytes: int) -> None:
        self._body = body
        self._limit_bytes = limit_bytes

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        try:
            return bytes(self._body.read(size))
        except MaxSizeExceeded:
            raise too_large(f"The body is larger than {self._limit_bytes} bytes.") from None
        except OSError as error:
            # Said of a chunk that would exceed the limit.
            if "Too Large" not in str(error):
                raise
            raise too_large(f"The body is larger than {self._limit_bytes} bytes.") from None


# The package's stubs know no return types.
_BaseGateway: Any = wsgi.Gateway_10


class _Gateway(_BaseGateway):
    """WSGI with the client's connection at hand."""

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["kappa.wire"] = Connection(self.req)
        environ["wsgi.input"] = _Body(self.req.rfile, self.req.server.max_request_body_size)
        return environ

    def respond(self) -> None:
        super().respond()
        if getattr(self.req, "broken_off", False):
            # Without the last chunk the client can tell the answer is not whole.
            self.req.chunked_write = False


def make_server(application: Application, port: int, limits: Limits) -> Any:
    """Return the server on the loopback interface; `prepare()` binds and `serve()` runs it."""
    server: Any = wsgi.Server(
        ("127.0.0.1", port),
        application,
        numthreads=limits.workers,
        server_name="kappa-views",
        request_queue_size=256,
        timeout=limits.client_timeout_seconds,
        shutdown_timeout=limits.stop_seconds + _CANCEL_SECONDS,
    )
    server.gateway = _Gateway
    server.max_request_header_size = _MAX_HEADER_BYTES
    server.max_request_body_size = limits.max_body_bytes
    server.keep_alive_conn_limit = _KEPT_CONNECTIONS
    server.error_log = _report
    return server


def _report(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """Log what the server says; a client that goes away is no error."""
    failure = sys.exc_info()[1]
    quiet = isinstance(failure, ConnectionError | TimeoutError)
    _log.log(logging.DEBUG if quiet else level, message, exc_info=traceback and not quiet)
