"""ClickHouse's HTTP interface as a WSGI application."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

from deploy.clickhouse_endpoint import access, coding, errors, statement
from deploy.clickhouse_endpoint.engine import Context, Engine, Result, quote
from deploy.clickhouse_endpoint.errors import QueryError

# Parameters of the transport itself; every other one is a setting for the engine.
_TRANSPORT = frozenset(
    "query user password database default_format session_id session_timeout session_check query_id "
    "quota_key wait_end_of_query buffer_size compress decompress client_protocol_version role "
    "send_progress_in_http_headers http_headers_progress_interval_ms enable_http_compression "
    "cancel_http_readonly_queries_on_client_close readonly stacktrace add_http_cors_header "
    "http_write_exception_in_output_format".split()
)
_HEAD_BYTES = 256 * 1024


@dataclass(frozen=True)
class Request:
    """A request as the application sees it; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    parameters: Mapping[str, str]
    body: BinaryIO

    @property
    def query_id(self) -> str:
        """The client's own id for the query, or a new one."""
        return self.parameters.get("query_id") or str(uuid.uuid4())


@dataclass
class Response:
    """An answer: status, headers, and the body in chunks."""

    status: int
    headers: dict[str, str]
    body: Iterable[bytes] = ()


@dataclass
class Application:
    """Answers requests from one engine."""

    engine: Engine
    users: access.Users
    database: str
    version: str
    scratch: Path
    max_execution_seconds: int = 60
    _sessions: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one WSGI request."""
        request = _request(environ)
        response = self.answer(request)
        headers = list(response.headers.items())
        start_response(f"{response.status} {_reason(response.status)}", headers)
        return response.body

    def answer(self, request: Request) -> Response:
        """Return the answer to `request`; an error becomes an answer too."""
        if request.path in ("/ping", "/replicas_status"):
            return _plain(200, b"Ok.\n")
        if request.path != "/":
            return _plain(404, f"There is no handle {request.path}\n".encode())
        if request.method not in ("GET", "POST"):
            return _plain(404 if request.method == "HEAD" else 405, b"Use GET or POST.\n")
        try:
            user = self.users.authenticate(*access.credentials(request.headers, request.parameters))
            return self._query(request, user)
        except QueryError as error:
            return self._failure(error)

    def _failure(self, error: QueryError) -> Response:
        response = _plain(errors.http_status(error), error.text(self.version).encode())
        response.headers["X-ClickHouse-Exception-Code"] = str(error.code)
        return response

    def _query(self, request: Request, user: access.User) -> Response:
        encoding = request.headers.get("content-encoding", "").lower()
        try:
            body = coding.decoded(encoding, request.body)
        except LookupError:
            raise QueryError(
                48, "NOT_IMPLEMENTED", f"Unknown compression method: {encoding}"
            ) from None
        given = request.parameters.get("query", "").encode()
        head = body.read(_HEAD_BYTES)
        sql = given + b"\n" + head if given and head else given + head
        if not sql.strip():
            return _plain(200, b"Ok.\n")
        parsed = statement.parse(sql)
        if parsed.several:
            raise QueryError(62, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
        context = self._context(request, user)
        if parsed.inserts_rows:
            return self._insert(request, context, parsed, sql, body)
        sql += body.read()
        return self._run(request, context, parsed, sql)

    def _context(self, request: Request, user: access.User) -> Context:
        settings = {"max_execution_time": str(self.max_execution_seconds)}
        for name, value in request.parameters.items():
            if name not in _TRANSPORT and not name.startswith("param_"):
                settings[name] = value
        readonly = 1 if user.reader else 2 if request.method == "GET" else 0
        database = request.parameters.get("database") or self.database
        database = request.headers.get("x-clickhouse-database", database)
        return Context(database, tuple(sorted(settings.items())), readonly)

    def _run(
        self, request: Request, context: Context, parsed: statement.Statement, sql: bytes
    ) -> Response:
        output_format = (
            parsed.format
            or request.headers.get("x-clickhouse-format")
            or request.parameters.get("default_format")
            or "TabSeparated"
        )
        with self.engine.connection(context, keep=parsed.reads) as connection:
            result = connection.run(sql.decode(), output_format, _bound(request))
        return self._success(request, output_format, result)

    def _insert(
        self,
        request: Request,
        context: Context,
        parsed: statement.Statement,
        head: bytes,
        rest: BinaryIO,
    ) -> Response:
        assert parsed.data_start is not None
        assert parsed.infile_at is not None
        with tempfile.NamedTemporaryFile(dir=self.scratch, buffering=1 << 20) as rows:
            rows.write(head[parsed.data_start :])
            shutil.copyfileobj(rest, rows, 1 << 20)
            rows.flush()
            clause = f"FROM INFILE {quote(rows.name)} COMPRESSION 'none' ".encode()
            before = head[: parsed.infile_at]
            after = head[parsed.infile_at : parsed.data_start]
            if parsed.format == "Values":
                after = (
                    after.rstrip()[: -len("VALUES")] if b"FORMAT" not in after.upper() else after
                )
                after = after if b"FORMAT" in after.upper() else after + b"FORMAT Values"
            with self.engine.connection(context, keep=True) as connection:
                result = connection.run((before + clause + after).decode())
        return self._success(request, "TabSeparated", result)

    def _success(self, request: Request, output_format: str, result: Result) -> Response:
        summary = {
            "read_rows": str(result.read_rows),
            "read_bytes": str(result.read_bytes),
            "written_rows": str(result.written_rows),
            "written_bytes": str(result.written_bytes),
            "elapsed_ns": str(int(result.seconds * 1e9)),
        }
        headers = {
            "Content-Type": _content_type(output_format),
            "X-ClickHouse-Query-Id": request.query_id,
            "X-ClickHouse-Format": output_format,
            "X-ClickHouse-Timezone": os.environ.get("TZ", "Etc/UTC"),
            "X-ClickHouse-Server-Display-Name": "kappa-views",
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
        }
        body: Iterator[bytes] = iter((result.body,))
        encoding = coding.negotiate(request.headers.get("accept-encoding", ""))
        if encoding and request.parameters.get("enable_http_compression") == "1":
            headers["Content-Encoding"] = encoding
            body = coding.compress(encoding, body)
        else:
            headers["Content-Length"] = str(len(result.body))
        return Response(200, headers, body)


def _bound(request: Request) -> dict[str, str]:
    return {
        name.removeprefix("param_"): value
        for name, value in request.parameters.items()
        if name.startswith("param_")
    }


def _plain(status: int, body: bytes) -> Response:
    headers = {"Content-Type": "text/plain; charset=UTF-8", "Content-Length": str(len(body))}
    return Response(status, headers, (body,))


def _content_type(output_format: str) -> str:
    if output_format.startswith("JSON"):
        return "application/json; charset=UTF-8"
    if output_format.startswith("TabSeparated") or output_format.startswith("TSV"):
        return "text/tab-separated-values; charset=UTF-8"
    if output_format.startswith("CSV"):
        return "text/csv; charset=UTF-8"
    return "application/octet-stream"


def _reason(status: int) -> str:
    from http import HTTPStatus

    return HTTPStatus(status).phrase


def _request(environ: dict[str, Any]) -> Request:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    parameters = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    return Request(
        environ["REQUEST_METHOD"], environ["PATH_INFO"], headers, parameters, environ["wsgi.input"]
    )
