"""Write view topics and run loaders of a namespace of one's own."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from confluent_kafka import Producer

from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from schemas.framing import frame
from schemas.registry import Registry, publish
from schemas.topics import end_offsets, ensure_raw_topic, ensure_view_topic
from sinks.batches import Limits
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader
from sinks.loader import group_of, open_loader
from sinks.metrics import LoaderMetrics
from sinks.sql import identifier
from tests.harness import wait_for
from tests.sinks.samples import COUNTS, body

Row = tuple[str, int, int]

_SECONDS = 60.0


@dataclass
class Sandbox:
    """A namespace on a stack: its topics, its database, its loaders."""

    settings: Settings
    ids: dict[str, int] = field(default_factory=dict)

    def topic(self, version: int = 1, view: str = "counts") -> str:
        """Name of a view's topic."""
        return f"{self.settings.topic_prefix}views.{view}.v{version}"

    def create(self, topic: str, schema: Mapping[str, Any] = COUNTS, partitions: int = 2) -> int:
        """Create a view's topic, register `schema` for it, and return the schema's id."""
        ensure_view_topic(self.settings.kafka_client, topic, partitions)
        with Registry(self.settings.registry) as registry:
            self.ids[topic] = publish(registry, f"{topic}-value", schema)
        return self.ids[topic]

    def create_raw(self, topic: str) -> str:
        """Create a topic of dead letters or late events, and return its whole name."""
        name = self.settings.topic_prefix + topic
        ensure_raw_topic(self.settings.kafka_client, name, 2)
        return name

    def write(self, topic: str, rows: Iterable[Row], schema: Mapping[str, Any] = COUNTS) -> None:
        """Write rows of (page, window start in minutes, views) as a job does, and commit."""
        with self.transaction() as producer:
            self.send(producer, topic, rows, schema)

    def send(
        self,
        producer: Producer,
        topic: str,
        rows: Iterable[Row],
        schema: Mapping[str, Any] = COUNTS,
    ) -> None:
        """Write rows and leave it to the caller to commit them."""
        for page, minute, views in rows:
            row = {"page": page, "window_start": minute * 60_000, "views": views, "bots": 0}
            producer.produce(
                topic,
                key=json.dumps([minute, page]).encode(),
                value=frame(self.ids[topic], body(row, dict(schema))),
            )
            producer.poll(0)
        producer.flush(_SECONDS)

    @contextmanager
    def transaction(self, *, commit: bool = True) -> Iterator[Producer]:
        """Yield a producer inside a transaction, which is committed or aborted at the end."""
        producer = self._producer
        producer.begin_transaction()
        yield producer
        producer.flush(_SECONDS)
        if commit:
            producer.commit_transaction(_SECONDS)
        else:
            producer.abort_transaction(_SECONDS)

    @cached_property
    def _producer(self) -> Producer:
        name = f"{self.settings.topic_prefix}writer"
        producer = Producer(self.settings.kafka_client | {"transactional.id": name, "linger.ms": 5})
        producer.init_transactions(_SECONDS)
        return producer

    @contextmanager
    def writing(self, topic: str, rows: Sequence[Row], step: int) -> Iterator[None]:
        """Write rows in transactions of `step`, beside what the caller does, to the last one."""
        failures = list[BaseException]()

        def write() -> None:
            try:
                for start in range(0, len(rows), step):
                    self.write(topic, rows[start : start + step])
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        yield
        thread.join(_SECONDS)
        assert not thread.is_alive(), "the rows are not all written"
        assert not failures, failures

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a reader sees."""
        clickhouse = ClickHouse(self.settings, reader=True)
        try:
            return clickhouse.query(query).rows
        finally:
            clickhouse.close()

    def counts(self) -> list[Row]:
        """Return all rows of the public view `counts`, in order."""
        found = self.rows(
            "SELECT page, toInt64(toUnixTimestamp(window_start) / 60), views FROM counts "
            "ORDER BY page, window_start"
        )
        return [(page, minute, views) for page, minute, views in found]

    def lag(self) -> int:
        """Return how many offsets the namespace's loaders have not committed."""
        reader = LagReader(self.settings.kafka_client)
        lags = reader.loader(group_of(self.settings), self.settings.topic_prefix)
        return sum(one.lag for one in lags)

    def wait_until_loaded(self, seconds: float = _SECONDS) -> None:
        """Wait until every offset of the namespace is committed."""
        wait_for(
            self.lag, seconds, "the loader commits the topics' ends", until=lambda lag: lag == 0
        )

    def end(self, topic: str) -> int:
        """Return how many offsets `topic` has."""
        ends = end_offsets(self.settings.kafka_client, topic, read_committed=True)
        return sum(ends.values())

    @contextmanager
    def loader(
        self,
        limits: Limits | None = None,
        metrics: LoaderMetrics | None = None,
        **changed: Any,
    ) -> Iterator[threading.Thread]:
        """Run a loader in a thread; its failure is raised when the context ends."""
        settings = changed_settings(self.settings, **changed)
        loader = open_loader(settings, limits=limits, metrics=metrics)
        stop, failures = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                loader.run(stop.is_set)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(_SECONDS)
            assert not thread.is_alive(), "the loader does not stop"
        if failures:
            raise failures[0]

    @contextmanager
    def process(self, **changed: Any) -> Iterator[subprocess.Popen[str]]:
        """Run a loader as a process, which is killed at the end if it still runs."""
        started = subprocess.Popen(
            [sys.executable, "-m", "sinks.loader"],
            env={**os.environ, **changed_settings(self.settings, **changed).environment()},
            cwd=PROJECT_ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield started
        finally:
            with suppress(ProcessLookupError):
                started.send_signal(signal.SIGKILL)
            started.communicate()


@contextmanager
def sandbox_on(stack: Stack) -> Iterator[Sandbox]:
    """Yield a namespace of its own on `stack`, whose database is gone afterwards."""
    settings = changed_settings(stack.settings, namespace=f"s{uuid.uuid4().hex[:8]}")
    yield Sandbox(settings)
    # The test may not have made its database, and a request to none is refused.
    clickhouse = ClickHouse(stack.settings)
    clickhouse.command(f"DROP DATABASE IF EXISTS {identifier(settings.database)}")
    clickhouse.close()


def changed_settings(settings: Settings, **changed: Any) -> Settings:
    """Return `settings` with some of them changed, and what they lead to derived anew."""
    return Settings(**{**settings.model_dump(), **changed})


class Gate:
    """A TCP port that leads to another one while it is open; a way to take a server away."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener: socket.socket | None = None
        self._ends: set[socket.socket] = set()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Let connections through, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse new connections and cut those there are."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            ends = {client, server}
            self._ends |= ends
            with suppress(OSError):
                while True:
                    ready, _, _ = select.select([client, server], [], [])
                    for end in ready:
                        data = end.recv(65536)
                        if not data:
                            return
                        self._passes(end is client, data)
                        (server if end is client else client).sendall(data)
        self._ends -= ends

    def _passes(self, to_server: bool, data: bytes) -> None:
        """Do what is to be done before `data` goes on."""


class Tap(Gate):
    """A gate that calls `reached` before an insert goes on, or with `after` before its answer.

    What was reached goes on when `reached` returns.
    """

    def __init__(self, port: int, reached: Callable[[], None], *, after: bool) -> None:
        self._reached, self._after, self._inserting = reached, after, False
        super().__init__(port)

    def _passes(self, to_server: bool, data: bytes) -> None:
        if to_server and b"INSERT" in data:
            self._inserting = True
        if self._inserting and to_server is not self._after:
            self._inserting = False
            self._reached()
