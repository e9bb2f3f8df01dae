"""Answers to queries: their headers, their compression, and blocks sent as they come."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from deploy.clickhouse_endpoint import blocks, coding, errors
from deploy.clickhouse_endpoint.engine import About, Result
from deploy.clickhouse_endpoint.errors import QueryError
from deploy.clickhouse_endpoint.messages import TEXT, Request, Response, plain

SERVER_NAME = "kappa-views"
_SMALL_BYTES = 64 * 1024
_LINES = "application/x-ndjson; charset=UTF-8"
_CONTENT_TYPES = (
    ("JSONEachRow", _LINES),
    ("JSONCompactEachRow", _LINES),
    ("JSONStringsEachRow", _LINES),
    ("JSON", "application/json; charset=UTF-8"),
    ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
    ("TSV", "text/tab-separated-values; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8"),
    ("Pretty", TEXT),
    ("Vertical", TEXT),
    ("XML", "application/xml; charset=UTF-8"),
    ("Markdown", "text/markdown; charset=UTF-8"),
)


def content_type(output_format: str) -> str:
    """Return the media type of an output format."""
    for prefix, media_type in _CONTENT_TYPES:
        if output_format.startswith(prefix):
            return media_type
    return "application/octet-stream"


def failure(error: QueryError, about: About) -> Response:
    """Return the answer that tells `error` as a ClickHouse server does."""
    response = plain(errors.http_status(error), error.text(about.version))
    response.headers["X-ClickHouse-Exception-Code"] = str(error.code)
    response.headers["X-ClickHouse-Server-Display-Name"] = SERVER_NAME
    return response


def whole(request: Request, about: About, output_format: str, result: Result) -> Response:
    """Return an answer that the engine has finished."""
    headers = _headers(request, about, output_format)
    summary = {
        "read_rows": str(result.read_rows),
        "read_bytes": str(result.read_bytes),
        "written_rows": str(result.written_rows),
        "written_bytes": str(result.written_bytes),
        "result_rows": str(result.result_rows),
        "result_bytes": str(result.size),
        "elapsed_ns": str(int(result.seconds * 1e9)),
    }
    headers["X-ClickHouse-Summary"] = json.dumps(summary, separators=(",", ":"))
    body = _encoded(request, headers, result.chunks())
    if result.size > _SMALL_BYTES:
        return Response(200, headers, body)
    pieces = list(body)
    headers["Content-Length"] = str(sum(map(len, pieces)))
    return Response(200, headers, pieces)


def streamed(
    request: Request,
    about: About,
    output_format: str,
    blocks_of_answer: Iterator[bytes],
    holds: ExitStack,
) -> Response:
    """Return an answer that is sent block by block, once its first block is there.

    `holds` is closed when the last block is sent, or the client has gone. Raises QueryError for
    a query that fails before its first block; one that fails later breaks the answer off.
    """
    with holds:
        first = next(blocks_of_answer, b"")
        headers = _headers(request, about, output_format)
        headers["X-ClickHouse-Summary"] = '{"read_rows":"0","read_bytes":"0"}'
        tag = headers["X-ClickHouse-Exception-Tag"] = secrets.token_hex(8)

        def broken(error: QueryError) -> bytes:
            request.wire.break_off()
            return _tagged(tag, error.text(about.version))

        stream = _Stream(first, blocks_of_answer, holds.pop_all(), broken)
    pieces = _encoded(request, headers, stream.pieces())
    return Response(200, headers, _Body(pieces, stream))


def _headers(request: Request, about: About, output_format: str) -> dict[str, str]:
    return {
        "Content-Type": content_type(output_format),
        "X-ClickHouse-Query-Id": request.query_id,
        "X-ClickHouse-Format": output_format,
        "X-ClickHouse-Timezone": about.timezone,
        "X-ClickHouse-Server-Display-Name": SERVER_NAME,
    }


def _encoded(request: Request, headers: dict[str, str], pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Return `pieces` compressed as the client asks, and note that in `headers`."""
    if request.parameters.get("compress") == "1":
        pieces = blocks.compress(pieces)
    encoding = coding.negotiate(request.headers.get("accept-encoding", ""))
    if encoding is None or request.parameters.get("enable_http_compression") != "1":
        return pieces
    headers["Content-Encoding"] = encoding
    return coding.compress(encoding, pieces)


def _tagged(tag: str, message: str) -> bytes:
    """Return what ends an answer that fails when part of it is sent already."""
    text = message.encode()
    start = b"\r\n__exception__\r\n" + tag.encode() + b"\r\n"
    end = f"{len(text)} {tag}\r\n__exception__\r\n".encode()
    return start + text + end


class _Stream:
    """The blocks of an answer, and what is held until they are sent."""

    def __init__(
        self,
        first: bytes,
        rest: Iterator[bytes],
        holds: ExitStack,
        broken: Callable[[QueryError], bytes],
    ) -> None:
        self._first = first
        self._rest = rest
        self._holds = holds
        self._broken = broken

    def pieces(self) -> Iterator[bytes]:
        """Yield the blocks; the last one is the error of a query that fails amid them."""
        yield self._first
        try:
            yield from self._rest
        except QueryError as error:
            yield self._broken(error)

    def close(self) -> None:
        """Release what is held; what still runs is cancelled."""
        self._holds.close()


class _Body:
    """Pieces with the `close()` that the server calls at the end."""

    def __init__(self, pieces: Iterator[bytes], stream: _Stream) -> None:
        self._pieces = pieces
        self.close = stream.close

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces
