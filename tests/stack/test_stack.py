"""The embedded stack starts, heals, keeps its data over a kill and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.console import CommandError
from deploy.flink import SLOTS, client_environment
from deploy.processes import members
from deploy.settings import Settings
from deploy.stack import Stack
from tests.harness import python_workers

pytestmark = pytest.mark.stack

_SCHEMA = '{"type": "record", "name": "Kept", "fields": [{"name": "a", "type": "string"}]}'
_WIDER = (
    '{"type": "record", "name": "Kept", "fields": '
    '[{"name": "a", "type": "string"}, {"name": "b", "type": "long"}]}'
)
_PYTHON_JOB = Path(__file__).with_name("python_job.py")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not after {seconds} s: {what}"
        time.sleep(0.05)


def kill_everything(stack: Stack) -> None:
    supervisor = stack.supervisor_pid()
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    for process in members(stack.place.home):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not members(stack.place.home), "all processes gone")


def jobs(settings: Settings) -> list[dict[str, str]]:
    return list(httpx.get(f"{settings.flink}/jobs/overview").json()["jobs"])


def worker_pids(stack: Stack) -> set[int]:
    return {process.pid for process in python_workers(stack)}


def clickhouse(settings: Settings, query: str) -> str:
    password = settings.clickhouse_password.get_secret_value()
    answer = httpx.post(
        f"http://127.0.0.1:{settings.clickhouse_http_port}/",
        content=query,
        auth=(settings.clickhouse_user, password),
        timeout=30,
    )
    return answer.raise_for_status().text.strip()


def produce(settings: Settings, topic: str, values: list[bytes]) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)
    producer = Producer({"bootstrap.servers": settings.kafka, "acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(10) == 0


def consume(settings: Settings, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": settings.kafka, "group.id": "test"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    records = consumer.consume(count, timeout=20)
    consumer.close()
    return [record.value() for record in records]


def test_up_starts_every_part_and_a_second_up_none_anew(own_stack: Stack) -> None:
    own_stack.up()
    before = {one.name: one.pid for one in own_stack.status()}

    own_stack.up()

    assert {one.name: one.pid for one in own_stack.status()} == before
    assert {one.state for one in own_stack.status()} == {"healthy"}


def test_every_part_answers_its_own_protocol(own_stack: Stack, own_settings: Settings) -> None:
    own_stack.up()

    produce(own_settings, "answers", [b"one"])
    assert consume(own_settings, "answers", 1) == [b"one"]
    with psycopg.connect(own_settings.postgres) as connection:
        assert connection.execute("SELECT 40 + 2").fetchone() == (42,)
    overview = httpx.get(f"{own_settings.flink}/overview").json()
    assert (overview["taskmanagers"], overview["slots-total"]) == (1, SLOTS)
    assert httpx.get(f"{own_settings.registry}/subjects").status_code == 200
    assert clickhouse(own_settings, "SELECT 40 + 2") == "42"
    for offset in (249, 250):
        metrics = httpx.get(f"http://127.0.0.1:{own_settings.port(offset)}/metrics").text
        assert "Status_JVM_Memory_Heap_Used" in metrics


def test_registry_refuses_an_incompatible_schema_with_its_reason(
    own_stack: Stack, own_settings: Settings
) -> None:
    own_stack.up()
    base = own_settings.registry
    compatibility = {"compatibility": "BACKWARD_TRANSITIVE"}

    first = httpx.post(f"{base}/subjects/strict-value/versions", json={"schema": _SCHEMA})
    httpx.put(f"{base}/config/strict-value", json=compatibility).raise_for_status()
    refused = httpx.post(f"{base}/subjects/strict-value/versions", json={"schema": _WIDER})

    assert first.status_code == 200
    assert refused.status_code == 409
    assert "b at /fields/1" in refused.json()["message"]
    unknown = httpx.get(f"{base}/schemas/ids/99999")
    assert (unknown.status_code, unknown.json()["error_code"]) == (404, 40403)


def test_killed_taskmanager_comes_back_and_leaves_no_python_worker(
    own_stack: Stack, own_settings: Settings
) -> None:
    own_stack.up()
    environment = {**os.environ, **client_environment(own_settings)}
    flink = Path(environment["FLINK_HOME"]) / "bin" / "flink"
    command = [str(flink), "run", "-d", "-py", str(_PYTHON_JOB)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    wait_for(lambda: len(worker_pids(own_stack)) > 0, "Python workers run")
    workers = worker_pids(own_stack)
    old = own_stack.wait_healthy("taskmanager")
    assert old.pid is not None

    os.kill(old.pid, signal.SIGKILL)

    new = own_stack.wait_healthy("taskmanager", other_than=old.pid)
    assert (new.restarts, new.last_exit) == (old.restarts + 1, -signal.SIGKILL)
    assert not any(psutil.pid_exists(pid) for pid in workers)
    wait_for(lambda: len(worker_pids(own_stack)) > 0, "the job runs again")
    for job in jobs(own_settings):
        httpx.patch(f"{own_settings.flink}/jobs/{job['jid']}").raise_for_status()
    wait_for(lambda: all(job["state"] == "CANCELED" for job in jobs(own_settings)), "job ended")


def test_killed_jobmanager_takes_the_taskmanager_with_it_and_both_come_back(
    own_stack: Stack,
) -> None:
    own_stack.up()
    manager, worker = own_stack.wait_healthy("jobmanager"), own_stack.wait_healthy("taskmanager")
    assert manager.pid is not None
    assert worker.pid is not None

    os.kill(manager.pid, signal.SIGKILL)

    own_stack.wait_healthy("jobmanager", other_than=manager.pid)
    own_stack.wait_healthy("taskmanager", other_than=worker.pid)


def test_kill_of_everything_loses_nothing(own_stack: Stack, own_settings: Settings) -> None:
    own_stack.up()
    subject = f"{own_settings.registry}/subjects/kept-value/versions"
    values = [f"record {number}".encode() for number in range(1000)]
    clickhouse(own_settings, "CREATE TABLE default.kept (n Int64) ENGINE MergeTree ORDER BY n")
    with psycopg.connect(own_settings.postgres) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    clickhouse(own_settings, "INSERT INTO default.kept VALUES (7)")
    produce(own_settings, "kept", values)
    schema_id = httpx.post(subject, json={"schema": _SCHEMA}).json()["id"]

    kill_everything(own_stack)
    # A killed JVM gives its memory back before it is gone.
    wait_for(lambda: {one.state for one in own_stack.status()} == {"stopped"}, "all is stopped")
    own_stack.up()

    assert {one.restarts for one in own_stack.status()} == {0}
    assert consume(own_settings, "kept", 1000) == values
    assert httpx.post(subject, json={"schema": _SCHEMA}).json()["id"] == schema_id
    assert httpx.get(f"{own_settings.registry}/schemas/ids/{schema_id}").status_code == 200
    with psycopg.connect(own_settings.postgres) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]
    assert clickhouse(own_settings, "SELECT n FROM default.kept") == "7"


def test_orphans_of_a_killed_supervisor_are_ended_before_the_next_start(own_stack: Stack) -> None:
    own_stack.up()
    before = {one.pid for one in own_stack.status()}
    supervisor = own_stack.supervisor_pid()
    assert supervisor is not None

    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: own_stack.supervisor_pid() is None, "the supervisor is gone")
    assert {one.state for one in own_stack.status()} == {"orphaned"}
    own_stack.up()

    assert {one.state for one in own_stack.status()} == {"healthy"}
    assert before.isdisjoint(process.pid for process in members(own_stack.place.home))


def test_down_leaves_no_process_and_may_be_repeated(own_stack: Stack) -> None:
    own_stack.up()

    own_stack.down()
    own_stack.down()

    assert members(own_stack.place.home) == []
    assert own_stack.supervisor_pid() is None
    assert {one.state for one in own_stack.status()} == {"stopped"}


def test_port_in_use_is_named_with_its_part_and_owner(
    own_stack: Stack, own_settings: Settings, listener: socket.socket
) -> None:
    own_stack.down()
    port = own_settings.port(92)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()

    with pytest.raises(CommandError) as refused:
        own_stack.up()

    message = str(refused.value)
    assert f"Port {port}, which Kafka broker needs" in message
    assert f"pid {os.getpid()}, in {os.getcwd()}" in message
    assert "KAPPA_PORT_BASE" in message
    assert members(own_stack.place.home) == []
