"""Request bodies as streams with bounds. No I/O but the streams passed in."""

from __future__ import annotations

from typing import Protocol

from deploy.clickhouse_endpoint.errors import QueryError, bad_body, too_large

CHUNK_BYTES = 1024 * 1024


class Reader(Protocol):
    """Anything that bytes can be read from; nothing more is read at the end."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes."""
        ...


class Received:
    """A body as it arrives; raises QueryError when the client breaks off or falls silent."""

    def __init__(self, body: Reader, expected_bytes: int | None, limit_bytes: int) -> None:
        self._body = body
        self._expected = expected_bytes
        self._limit = limit_bytes
        self.received = 0
        self.ended = expected_bytes == 0

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Return up to `size` bytes, nothing at the end."""
        if self.ended:
            return b""
        try:
            data = self._body.read(size if size > 0 else CHUNK_BYTES)
        except TimeoutError:
            raise QueryError(209, "SOCKET_TIMEOUT", "Timeout exceeded while reading body") from None
        except (OSError, ValueError) as error:
            raise bad_body(f"The body can't be read: {error}") from None
        self.received += len(data)
        self.ended = not data or self.received == self._expected
        if not data and self._expected is not None and self.received != self._expected:
            raise bad_body(f"The body ends after {self.received} of {self._expected} bytes.")
        if self.received > self._limit:
            raise too_large(f"The body is larger than {self._limit} bytes.")
        return data

    def drain(self, limit_bytes: int) -> bool:
        """Read on to the end, but no further than `limit_bytes`; return whether it was reached."""
        stop = self.received + limit_bytes
        try:
            while not self.ended and self.received < stop:
                self.read()
        except QueryError:
            return False
        return self.ended


class Bounded:
    """A decoded body that may not be larger than `limit_bytes`."""

    def __init__(self, body: Reader, limit_bytes: int, what: str) -> None:
        self._body = body
        self._left = limit_bytes
        self._limit = limit_bytes
        self._what = what

    def read(self, size: int = CHUNK_BYTES, /) -> bytes:
        """Return up to `size` bytes; raises QueryError beyond the limit or for damaged data."""
        data = self._body.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise too_large(f"The {self._what} is larger than {self._limit} bytes.")
        return data


def read_all(body: Reader) -> bytes:
    """Return what is left of `body`."""
    parts = []
    while part := body.read(CHUNK_BYTES):
        parts.append(part)
    return b"".join(parts)


def read_up_to(body: Reader, size: int) -> bytes:
    """Return the next `size` bytes of `body`, or fewer at its end."""
    parts = []
    while size and (part := body.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
