"""Run one statement for a user: what it may do, on which connection, and how it is answered."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.clickhouse_endpoint import answers, blocks, coding, errors, guard, messages, native
from deploy.clickhouse_endpoint.access import User
from deploy.clickhouse_endpoint.context import Context, buffered, request_context
from deploy.clickhouse_endpoint.engine import About, Connection, Engine, quote
from deploy.clickhouse_endpoint.errors import QueryError
from deploy.clickhouse_endpoint.limits import Limits
from deploy.clickhouse_endpoint.messages import Request, Response
from deploy.clickhouse_endpoint.metrics import Metrics
from deploy.clickhouse_endpoint.sessions import Sessions
from deploy.clickhouse_endpoint.statement import Rows, Statement, parse
from deploy.clickhouse_endpoint.streams import (
    CHUNK_BYTES,
    Bounded,
    Reader,
    read_all,
    read_up_to,
)
from deploy.clickhouse_endpoint.watch import Watch

_HEAD_BYTES = 64 * 1024
# As much as ClickHouse takes by default; each word or sign in it takes some 200 bytes here.
_READER_STATEMENT_BYTES = 256 * 1024
_FORMAT = re.compile(r"[A-Za-z0-9_]+")
# Blocks of these can be strung together; others have a head or an end.
_STREAMED = frozenset(
    """
    Native TabSeparated TSV TabSeparatedRaw TSVRaw Raw CSV JSONEachRow JSONLines NDJSON
    JSONCompactEachRow JSONStringsEachRow RowBinary LineAsString RawBLOB TSKV
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class _Job:
    """A statement to run, and for whom."""

    request: Request
    user: User
    statement: Statement
    context: Context

    @property
    def kind(self) -> str:
        """What the metrics count it as."""
        if self.statement.reads:
            return "select"
        return "insert" if self.statement.keyword == "INSERT" else "other"


class Queries:
    """Runs statements on one engine."""

    def __init__(
        self, engine: Engine, about: About, scratch: Path, limits: Limits, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._about = about
        self._scratch = scratch
        self._limits = limits
        self._metrics = metrics
        self._turns = threading.BoundedSemaphore(limits.max_reads)
        self._allowed = _Remembered()
        self._denied = guard.denied_functions(about.table_functions)
        self._sessions = Sessions(engine.connect, limits.max_sessions, time.monotonic)
        self._watch = Watch(engine.cancel)
        self._watch.start()

    def close(self) -> None:
        """End all sessions; the caller closes the engine."""
        self._watch.close()
        self._sessions.close()

    def cancel_reads(self) -> None:
        """Cancel the queries that run now; inserts go on."""
        self._watch.cancel_all()

    def answer(self, request: Request, user: User) -> Response:
        """Run the statement of `request` and return its answer; raises QueryError."""
        body = self._decoded(request)
        longest = self._limits.max_statement_bytes
        if user.reader:
            longest = min(longest, _READER_STATEMENT_BYTES)
        given = request.parameters.get("query", "").encode()
        if request.headers["content-type"].startswith("multipart/form-data"):
            form = read_all(Bounded(body, self._limits.max_statement_bytes, "form"))
            fields = messages.form_fields(request.headers["content-type"], form)
            given += fields.pop("query", "").encode()
            request = replace(request, parameters={**request.parameters, **fields})
        sql, statement = _statement(given, body, longest)
        _check(request, statement)
        job = _Job(request, user, statement, self._context(request, user, statement))
        if statement.rows is not None:
            return self._insert(job, statement.rows, sql, body)
        return self._run(job, sql)

    def _decoded(self, request: Request) -> Reader:
        encoding = request.headers.get("content-encoding", "").strip().lower()
        body: Reader = coding.Decoded(encoding, request.body)
        if request.parameters.get("decompress") == "1":
            body = blocks.BlockReader(body)
        return Bounded(body, self._limits.max_body_bytes, "decompressed body")

    def _context(self, request: Request, user: User, statement: Statement) -> Context:
        database = request.parameters.get("database", "")
        database = request.headers.get("x-clickhouse-database", database)
        return request_context(
            request.parameters, user, database, self._limits, reads=statement.reads
        )

    def _run(self, job: _Job, sql: bytes) -> Response:
        request, reads = job.request, job.statement.reads
        output_format = _output_format(request, job.statement)
        waits = request.parameters.get("wait_end_of_query") == "1"
        streams = job.statement.selects and output_format in _STREAMED and not waits
        if reads and not streams:
            job = replace(job, context=buffered(job.context, job.user, self._limits))
        with ExitStack() as holds:
            connection = self._lend(job, holds)
            if job.user.reader:
                self._refuse_changes(connection, sql, request.bound())
            if reads:
                holds.enter_context(self._watch.over(connection.tag, request.wire))
            if streams:
                return self._stream(request, connection, sql, output_format, holds)
            result = connection.run(sql, output_format, request.bound())
        if _wants_later_blocks(request, output_format):
            result.replace(native.upgrade)
        self._metrics.inserted_rows.inc(result.written_rows)
        return answers.whole(request, self._about, output_format, result)

    def _stream(
        self,
        request: Request,
        connection: Connection,
        sql: bytes,
        output_format: str,
        holds: ExitStack,
    ) -> Response:
        stream = connection.stream(sql, output_format, request.bound())
        # Before the connection goes back: chDB hangs when it is closed amid a stream.
        holds.callback(stream.close)
        later = _wants_later_blocks(request, output_format)
        sent = native.upgraded(stream) if later else stream
        return answers.streamed(request, self._about, output_format, sent, holds.pop_all())

    def _lend(self, job: _Job, holds: ExitStack) -> Connection:
        """Wait for a turn and return the job's connection, both held by `holds`."""
        if job.statement.reads:
            holds.enter_context(self._turn())
        self._metrics.queries.labels(job.kind).inc()
        holds.enter_context(self._metrics.running.labels(job.kind).track_inprogress())
        holds.enter_context(self._metrics.seconds.labels(job.kind).time())
        parameters = job.request.parameters
        # Settings can't be taken back under `readonly`, so a reader has no session of its own.
        if parameters.get("session_id") and not job.context.readonly:
            session = holds.enter_context(self._sessions.lend(job.user.name, parameters))
            changes_session = job.statement.keyword in ("SET", "USE")
            session.prepare(job.context, changes_session=changes_session)
            return session.connection
        traceless = job.kind in ("select", "insert") and job.statement.keyword != "USE"
        return holds.enter_context(self._engine.connection(job.context, keep=traceless))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold one of the places for queries, so that some workers are left for inserts."""
        if not self._turns.acquire(timeout=self._limits.read_wait_seconds):
            raise QueryError(
                202,
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"Too many simultaneous queries. Maximum: {self._limits.max_reads}",
            )
        try:
            yield
        finally:
            self._turns.release()

    def _refuse_changes(
        self, connection: Connection, sql: bytes, values: Mapping[str, str]
    ) -> None:
        """Raise QueryError for what a reader may not run, judged by the engine's own parser."""
        names = self._allowed.get(sql)
        if names is None:
            canonical = connection.run(
                "SELECT formatQuerySingleLine({statement:String})",
                "TabSeparatedRaw",
                {"statement": guard.as_parameter(sql)},
            )
            rendered = canonical.text().encode()
            refused = guard.refusal(rendered, self._denied)
            if refused is not None:
                raise refused
            names = guard.identifiers(rendered)
            self._allowed.add(sql, names)
        refused = guard.identifier_refusal(names, values)
        if refused is not None:
            raise refused

    def _insert(self, job: _Job, rows: Rows, head: bytes, rest: Reader) -> Response:
        """Write the rows to a file and let the engine read that, which it does in parallel."""
        if job.context.readonly:
            raise errors.readonly("Cannot execute INSERT query in readonly mode.")
        with tempfile.NamedTemporaryFile(dir=self._scratch, buffering=0) as file:
            file.write(head[rows.start :])
            while part := rest.read(CHUNK_BYTES):
                file.write(part)
            sql = rows.from_file(head, quote(file.name))
            with ExitStack() as holds:
                connection = self._lend(job, holds)
                try:
                    result = connection.run(sql, parameters=job.request.bound())
                except QueryError as error:
                    raise _without_path(error, file.name) from None
        self._metrics.inserted_rows.inc(result.written_rows)
        return answers.whole(job.request, self._about, "TabSeparated", result)


class _Remembered:
    """Statements that a reader was allowed already, with the parameters that each uses as names.

    The longest unused are forgotten first.
    """

    _LIMIT = 1024
    _MAX_BYTES = 8192

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[bytes, frozenset[str]] = OrderedDict()

    def get(self, sql: bytes) -> frozenset[str] | None:
        with self._lock:
            names = self._seen.get(sql)
            if names is not None:
                self._seen.move_to_end(sql)
            return names

    def add(self, sql: bytes, names: frozenset[str]) -> None:
        if len(sql) > self._MAX_BYTES:
            return
        with self._lock:
            self._seen[sql] = names
            if len(self._seen) > self._LIMIT:
                self._seen.popitem(last=False)


def _statement(given: bytes, body: Reader, limit_bytes: int) -> tuple[bytes, Statement]:
    """Return the SQL, with what came with it of an INSERT's rows, and what it is.

    Raises QueryError for a statement of more than about `limit_bytes`.
    """
    head = read_up_to(body, _HEAD_BYTES)
    sql = given + b"\n" + head if given and head else given + head
    statement = _parsed(sql, limit_bytes)
    begun = statement.rows is not None and statement.rows.start < len(sql)
    if not begun and len(head) == _HEAD_BYTES:
        sql += read_all(Bounded(body, limit_bytes, "statement"))
        statement = _parsed(sql, limit_bytes)
    return sql, statement


def _parsed(sql: bytes, limit_bytes: int) -> Statement:
    # What is read of a body at first may be an INSERT's rows.
    if len(sql) > limit_bytes + _HEAD_BYTES:
        raise errors.too_large(f"The statement is larger than {limit_bytes} bytes.")
    return parse(sql)


def _check(request: Request, statement: Statement) -> None:
    """Raise QueryError for a statement that HTTP does not carry."""
    if not statement.keyword:
        raise errors.syntax("Empty query")
    if statement.several:
        raise errors.syntax("Multi-statements are not allowed")
    if statement.file:
        raise errors.not_implemented("INTO OUTFILE and FROM INFILE are not allowed over HTTP")
    if request.method == "GET" and not statement.reads:
        raise errors.readonly("Cannot execute query in readonly mode: GET only reads, use POST")


def _output_format(request: Request, statement: Statement) -> str:
    asked = (
        statement.format
        or request.headers.get("x-clickhouse-format")
        or request.parameters.get("default_format")
        or "TabSeparated"
    )
    # The answer's headers name it, also where the engine writes nothing in it.
    if not _FORMAT.fullmatch(asked):
        raise QueryError(73, "UNKNOWN_FORMAT", f"Unknown format {asked}")
    return asked


def _wants_later_blocks(request: Request, output_format: str) -> bool:
    version = request.parameters.get("client_protocol_version", "")
    return native.is_wanted(version, output_format)


def _without_path(error: QueryError, path: str) -> QueryError:
    """Return `error` without the file's name, which says nothing to the client."""
    message = error.message.replace(f": (in file/uri {path})", "").replace(path, "the body")
    return QueryError(error.code, error.name, message)
