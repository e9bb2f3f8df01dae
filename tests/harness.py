"""Drive the embedded stack from a test: write events, run job and loader, read the results."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import fastavro
import httpx
import psutil
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from deploy.processes import members
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from jobs.catalogue import job_named
from jobs.cluster import Cluster
from jobs.submit import Submitted, cancel, submit
from schemas.registry import Registry, publish
from schemas.streams import Stream
from schemas.topics import end_offsets, ensure_events_topic
from tests.oracle import Record, Row, Rows

T = TypeVar("T")

PANE_VIEWS = ("page_views_per_minute", "page_views_sliding", "site_traffic_per_minute")
"""What the page-view job writes in tests that name no other views."""
READ_SECONDS = 60.0
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Message:
    """One record as it lies in a topic."""

    record: Record
    headers: dict[str, str]


@dataclass
class Environment:
    """One namespace on a stack: its own topics, job, database and loader."""

    settings: Settings
    logs: Path
    job_id: str = ""
    job_name: str = ""
    jobs: dict[str, str] = field(default_factory=dict)
    loader: subprocess.Popen[bytes] | None = None
    registered: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def stream(self) -> Stream:
        """The page-view stream in this namespace."""
        return job_named("page_views").within(self.settings.namespace).stream

    def view_topic(self, view: str, version: int = 1) -> str:
        """Topic of a view's rows."""
        return self.stream.prefixed(f"views.{view}.v{version}")


class TimedOut(AssertionError):
    """A condition that did not come true before its deadline."""


def wait_for(
    condition: Callable[[], T],
    deadline_seconds: float,
    describe: str | Callable[[], str],
    until: Callable[[T], bool] = bool,
) -> T:
    """Return what `condition` gives as soon as it is `until`; fail with what was last seen.

    An exception counts as "not yet", because a table or a job may not exist at first.
    """
    deadline = time.monotonic() + deadline_seconds
    pause = POLL_SECONDS / 8
    last: object = "nothing yet"
    while True:
        try:
            found = condition()
            if until(found):
                return found
            last = found
        except Exception as error:
            last = error
        if time.monotonic() > deadline:
            what = describe if isinstance(describe, str) else describe()
            raise TimedOut(f"not within {deadline_seconds:g} s: {what}; last seen: {last!r:.2000}")
        time.sleep(pause)
        pause = min(pause * 2, POLL_SECONDS)


@contextmanager
def environment(stack: Stack, **changed: Any) -> Iterator[Environment]:
    """Give a namespace of its own; its loader and jobs are stopped at the end.

    `changed` are settings that differ from the stack's.
    """
    namespace = f"t{uuid.uuid4().hex[:8]}"
    settings = stack.settings.model_copy(update={"namespace": namespace, **changed})
    env = Environment(settings, stack.place.logs)
    try:
        yield env
    finally:
        # Last in, first out; each is done though another fails.
        with ExitStack() as ends:
            for name in env.jobs:
                ends.callback(_cancel_live, env, name)
            ends.callback(cancel_job, env)
            ends.callback(stop_loader, env)


def python_workers(stack: Stack) -> list[psutil.Process]:
    """Return the processes that run Python functions of the stack's jobs."""
    return list(filter(is_python_worker, members(stack.place.home, ["taskmanager"])))


def is_python_worker(process: psutil.Process) -> bool:
    """Whether a process of the TaskManager's runs Python functions; one that is gone does not."""
    try:
        return any("beam_boot" in word for word in process.cmdline())
    except psutil.Error:
        return False


@contextmanager
def standing_still(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Stop processes, and have them go on afterwards if they are there still."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def start(env: Environment) -> None:
    """Create the events topic, start the job and a loader."""
    create_topic(env)
    submit_page_views(env)
    start_loader(env)


def kappa(env: Environment, *words: str) -> Any:
    """Return what the command line prints as JSON."""
    return json.loads(printed(env, *words, "--json"))


def printed(env: Environment, *words: str) -> str:
    """Return what the command line prints, of 200 columns; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        env=os.environ | env.settings.environment() | {"COLUMNS": "200"},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def register(env: Environment, schema: dict[str, Any], subject: str = "") -> int:
    """Register `schema` under the stream's subject, or another, and return its id."""
    with Registry(env.settings.registry) as registry:
        number = publish(registry, subject or env.stream.subject, schema)
    env.registered[number] = schema
    return number


def create_topic(env: Environment) -> None:
    """Create the topic of the namespace's events."""
    ensure_events_topic({"bootstrap.servers": env.settings.kafka}, env.stream)


def end_transaction(
    producer: Producer, kafka: Mapping[str, str], topic: str, *, commit: bool = True
) -> None:
    """Commit or abort, and wait for the markers, which the broker writes after it has answered."""
    (producer.commit_transaction if commit else producer.abort_transaction)(30)
    wait_for(
        lambda: end_offsets(kafka, topic, read_committed=True),
        30,
        f"no transaction is open on {topic}",
        until=lambda ends: ends == end_offsets(kafka, topic),
    )


def produce(env: Environment, records: Iterable[Record], topic: str = "") -> list[Record]:
    """Write `records` to the partitions they name and return them with their true offsets.

    Without `topic` it is that of the page views.
    """
    producer = Producer(
        {
            "bootstrap.servers": env.settings.kafka,
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.max.bytes": 2 * 1024 * 1024,
            "queue.buffering.max.kbytes": 1_000_000,
        }
    )
    written: list[Record] = []
    failures: list[str] = []

    def report(record: Record) -> Callable[[KafkaError | None, Any], None]:
        def done(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                failures.append(error.str())
                return
            place = message.partition(), message.offset()
            written.append(Record(*place, record.timestamp_ms, record.key, record.value))

        return done

    for record in records:
        producer.produce(
            topic or env.stream.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            timestamp=record.timestamp_ms,
            on_delivery=report(record),
        )
        producer.poll(0)
    assert producer.flush(READ_SECONDS) == 0, "the broker did not take all records"
    assert not failures, failures[:3]
    return sorted(written, key=lambda record: record.place)


def read_topic(env: Environment, topic: str, isolation: str = "read_committed") -> list[Message]:
    """Return every record that `topic` holds now, ordered by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": env.settings.kafka,
            "group.id": f"harness-{time.monotonic_ns()}",
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 4_000_000,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=READ_SECONDS).topics[topic].partitions
        assert partitions, f"there is no topic {topic}"
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        return sorted(_to_the_end(consumer, set(partitions)), key=lambda m: m.record.place)
    finally:
        consumer.close()


def _to_the_end(consumer: Consumer, open_partitions: set[int]) -> list[Message]:
    deadline = time.monotonic() + READ_SECONDS
    messages: list[Message] = []
    while open_partitions:
        assert time.monotonic() < deadline, f"partitions {open_partitions} have no end"
        for message in consumer.consume(10_000, timeout=0.05):
            error = message.error()
            if error is None:
                messages.append(_message(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            else:
                raise AssertionError(error.str())
    return messages


def _message(message: Any) -> Message:
    _, timestamp = message.timestamp()
    place = message.partition(), message.offset()
    record = Record(*place, timestamp, message.key(), message.value())
    headers = {name: value.decode() for name, value in message.headers() or ()}
    return Message(record, headers)


def rows(env: Environment, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of `sql`, asked as the user who may only read."""
    settings = env.settings
    client = _reader(
        settings.clickhouse_host,
        settings.clickhouse_http_port,
        settings.clickhouse_reader,
        settings.clickhouse_reader_password.get_secret_value(),
    )
    return [tuple(row) for row in client.query(sql).result_rows]


@cache
def _reader(host: str, port: int, user: str, password: str) -> Any:
    """Return a client, which a server that was killed and is back serves too."""
    return clickhouse_connect.get_client(
        host=host, port=port, username=user, password=password, autogenerate_session_id=False
    )


_COLUMNS = "window_start, window_end, views, unique_users, avg_duration_ms, errors"


def view_rows(env: Environment, view: str) -> Rows:
    """Return what people see in `view`; a key that stands there twice is a failure."""
    page = "NULL" if view.startswith("site") else "page_id"
    found: Rows = {}
    for values in rows(env, f"SELECT {page}, {_COLUMNS} FROM {env.settings.database}.{view}"):
        row = Row(values[0], _ms(values[1]), _ms(values[2]), *values[3:])
        assert row.key not in found, f"{view} has two rows for {row.key}"
        found[row.key] = row
    return found


def topic_rows(env: Environment, view: str) -> Rows:
    """Return the newest committed revision of each key in `view`'s topic."""
    newest: dict[bytes, Row] = {}
    partitions: dict[bytes, int] = {}
    with Registry(env.settings.registry) as registry:
        for message in read_topic(env, env.view_topic(view)):
            value, key = message.record.value, message.record.key
            assert value is not None, f"{view} deletes a row"
            assert key is not None, f"{view} has a row without a key"
            partition = message.record.partition
            assert partitions.setdefault(key, partition) == partition, f"{key!r} moved"
            schema = registry.schema_by_id(int.from_bytes(value[1:5], "big"))
            newest[key] = _decoded_row(value, schema)
    for key, row in newest.items():
        assert key.decode() == _key_text(row)
    return {row.key: row for row in newest.values()}


def _decoded_row(value: bytes, schema: dict[str, Any]) -> Row:
    fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
    assert isinstance(fields, dict)
    start, end = _ms(fields.pop("window_start")), _ms(fields.pop("window_end"))
    return Row(fields.pop("page_id", None), start, end, **fields)


def _key_text(row: Row) -> str:
    start = datetime.fromtimestamp(row.window_start / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parts = [start] if row.page_id is None else [start, row.page_id]
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)


def _ms(moment: datetime) -> int:
    utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(utc.timestamp() * 1000)


def submit_page_views(
    env: Environment, views: tuple[str, ...] = PANE_VIEWS, **chosen: Any
) -> Submitted:
    """Submit the page-view job of the namespace and return it once all its tasks run."""
    submitted = submit(env.settings, "page_views", views=views, **chosen)
    env.job_id, env.job_name = submitted.job_id, submitted.name
    return submitted


def cancel_job(env: Environment) -> None:
    """Cancel the namespace's job, if one is live, and wait until its slots are free."""
    if env.job_name:
        _cancel_live(env, env.job_name)


def _cancel_live(env: Environment, name: str) -> None:
    if Cluster(env.settings.flink).live_job(name):
        cancel(env.settings, name)


def flink(env: Environment, path: str) -> Any:
    """Return the answer of Flink's REST API at `path`."""
    with httpx.Client(trust_env=False, verify=False, timeout=10) as client:
        answer = client.get(f"{env.settings.flink}{path}")
    answer.raise_for_status()
    return answer.json()


def job_state(env: Environment) -> str:
    """Return the state that Flink gives the namespace's job."""
    return str(flink(env, f"/jobs/{env.job_id}")["state"])


def failures(env: Environment) -> int:
    """Return how many failures of the namespace's job Flink has recorded; each is a restart.

    The metric `numRestarts` would tell too, ten seconds later.
    """
    history = flink(env, f"/jobs/{env.job_id}/exceptions")["exceptionHistory"]
    return len(history["entries"])


def completed_checkpoints(env: Environment) -> int:
    """Return how many checkpoints of the namespace's job have completed."""
    return int(flink(env, f"/jobs/{env.job_id}/checkpoints")["counts"]["completed"])


def start_loader(env: Environment) -> None:
    """Start the loader of the namespace as a process of its own."""
    with (env.logs / f"loader-{env.settings.namespace}.log").open("ab") as log:
        env.loader = subprocess.Popen(
            [sys.executable, "-m", "sinks.loader"],
            env=os.environ | env.settings.environment(),
            cwd=PROJECT_ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def stop_loader(env: Environment, how: signal.Signals = signal.SIGTERM) -> int:
    """Stop the namespace's loader and return its exit code; one that does not stop is killed."""
    if env.loader is None:
        return 0
    loader, env.loader = env.loader, None
    loader.send_signal(how)
    try:
        return loader.wait(30)
    except subprocess.TimeoutExpired:
        loader.kill()
        raise
