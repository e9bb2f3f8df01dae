"""A namespace under faults: events keep coming, readers keep looking, and in the end all is right.

After each round these hold: every view equals the oracle row for row; every input offset is in
exactly one of aggregated, late and dead; checkpoints, watermark and last stable offset move on; and
no reader ever saw a row twice, a count that went back, or more than there was.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from deploy.flink import place_of
from deploy.stack import Stack
from jobs.cluster import Cluster
from schemas.topics import end_offsets, partition_count
from sinks.lag import LagReader
from sinks.loader import group_of
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    kappa,
    produce,
    register,
    start_loader,
    stop_loader,
    submit_page_views,
    view_rows,
    wait_for,
)
from tests.oracle import SITE, Record, Verdict
from tests.settling import assert_status, settle

BACK_SECONDS = 420.0
_WATCHED = ("page_views_per_minute", SITE)
_CHUNK, _CHUNK_SECONDS = 250, 0.5


@dataclass
class Scene:
    """A page-view job with its loader, fed and watched while faults happen to it."""

    stack: Stack
    env: Environment
    chance: random.Random
    schema_id: int = 0
    rounds: int = 0

    def begin(self) -> None:
        """Start the job and the loader."""
        self.schema_id = register(self.env, datasets.V1)
        create_topic(self.env)
        submit_page_views(self.env)
        start_loader(self.env)
        wait_for(lambda: Cluster(self.env.settings.flink).live_job(self.env.job_name), 60, "runs")

    def traffic(self, events: int) -> list[Record]:
        """Return the next round's events, of hours after the last one's; 2% late, 1% broken."""
        self.rounds += 1
        return datasets.dense_traffic(
            self.schema_id,
            events=events,
            late_share=0.02,
            broken_share=0.01,
            start=self._start(self.rounds),
            seed=self.chance.randrange(2**32),
        )

    @staticmethod
    def _start(number: int) -> int:
        return datasets.EVENING + 2 * number * datasets.HOUR

    @contextmanager
    def under_way(self, events: int = 4_000) -> Iterator[None]:
        """Feed a round's events and watch the views meanwhile; afterwards all must be right."""
        feeder, watcher = Feeder(self.env, self.traffic(events)), Watcher(self.env)
        with watcher:
            feeder.start()
            wait_for(lambda: feeder.sent, 60, "some events are sent")
            yield
            feeder.join(BACK_SECONDS)
            assert not feeder.is_alive(), "the producer hangs"
            self.settled()
        assert watcher.faults == []
        assert watcher.looks

    def settled(self) -> Verdict:
        """Wait until views and letters are those of the oracle and everything goes on."""
        checkpoints = self.checkpoints()
        verdict = settle(self.env, BACK_SECONDS)
        assert_status(self.env, verdict)
        wait_for(self.checkpoints, 60, "a checkpoint completes", until=lambda n: n != checkpoints)
        lags = LagReader(self.env.settings.kafka_client)
        prefix = self.env.settings.topic_prefix
        wait_for(
            lambda: all(place.stable == place.end for place in lags.stable_offsets(prefix)),
            60,
            "no transaction is left open",
        )
        return verdict

    def checkpoints(self) -> tuple[str, int]:
        """Return the job's id and how many of its checkpoints completed."""
        cluster = Cluster(self.env.settings.flink)

        def ask() -> tuple[str, int]:
            job = cluster.live_job(self.env.job_name)
            assert job is not None
            return job.id, int(cluster.get(f"/jobs/{job.id}/checkpoints")["counts"]["completed"])

        # A job that starts can't be asked yet.
        return wait_for(ask, BACK_SECONDS, "the job lives")

    def add_partition(self) -> None:
        """Give the events topic one partition more, and that one some events.

        They are of the next round, so that the job's watermark, which moves a hundred times as
        fast here as the clock, has not passed them when the partition is discovered.
        """
        kafka, topic = self.env.settings.kafka_client, self.env.stream.topic
        number = partition_count(kafka, topic)
        # A client that nobody holds on to forgets its request.
        admin = AdminClient(dict(kafka))
        admin.create_partitions([NewPartitions(topic, number + 1)])[topic].result(60)
        events = datasets.dense_traffic(
            self.schema_id, events=300, start=self._start(self.rounds + 1), seed=number
        )
        produce(self.env, [replace(event, partition=number) for event in events])

    @contextmanager
    def checkpoints_away(self) -> Iterator[None]:
        """Put a file where the folder of all checkpoints is, which is back afterwards."""
        folder = place_of(self.env.settings) / "checkpoints"
        away = folder.with_name("checkpoints-away")
        folder.rename(away)
        folder.touch()
        try:
            yield
        finally:
            folder.unlink()
            away.rename(folder)

    def await_failed_checkpoints(self) -> None:
        """Wait until three checkpoints failed, or could not begin as the job restarts."""
        cluster = Cluster(self.env.settings.flink)
        job_id, _ = self.checkpoints()

        def failed() -> int:
            return int(cluster.get(f"/jobs/{job_id}/checkpoints")["counts"]["failed"])

        before = failed()
        wait_for(failed, BACK_SECONDS, "checkpoints fail", until=lambda now: now >= before + 3)

    def await_checkpoint(self) -> None:
        """Wait until one more checkpoint is complete."""
        before = self.checkpoints()
        wait_for(self.checkpoints, BACK_SECONDS, "a checkpoint", until=lambda now: now != before)

    def kill(self, *parts: str) -> None:
        """`kill -9` parts of the stack, all before the first is back, and wait for their return."""
        found = {part: self.pid(part) for part in parts}
        for pid in found.values():
            os.kill(pid, signal.SIGKILL)
        for part, pid in found.items():
            self.stack.wait_healthy(part, BACK_SECONDS, other_than=pid)

    def pause(self, part: str, seconds: float) -> None:
        """Stop a part of the stack for a while without ending it."""
        stopped = [psutil.Process(self.pid(part))]
        stopped += stopped[0].children(recursive=True)
        for process in stopped:
            process.suspend()
        try:
            threading.Event().wait(seconds)
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        self.stack.wait_healthy(part, BACK_SECONDS)

    def pid(self, part: str) -> int:
        """Return the process id of a part that is well."""
        pid = self.stack.wait_healthy(part, BACK_SECONDS).pid
        assert pid is not None
        return pid

    def upgrade(self, parallelism: int) -> None:
        """Stop the job with a savepoint and start it from there with other subtasks."""
        done = kappa(self.env, "upgrade", "page_views", "--parallelism", str(parallelism))
        self.env.job_id = done["started"]["job_id"]

    def await_loaded(self) -> None:
        """Wait until the views show all that stood in their topics when this was called."""
        lags = LagReader(self.env.settings.kafka_client)
        prefix, group = self.env.settings.topic_prefix, group_of(self.env.settings)
        ends = {(lag.topic, lag.partition): lag.end for lag in lags.loader(group, prefix)}
        wait_for(
            lambda: all(
                lag.committed >= ends.get((lag.topic, lag.partition), 0)
                for lag in lags.loader(group, prefix)
            ),
            BACK_SECONDS,
            "the rows are loaded",
        )

    def replace_loader(self, how: signal.Signals) -> None:
        """End the loader in the way of `how` and start another."""
        stop_loader(self.env, how)
        start_loader(self.env)


class Feeder(threading.Thread):
    """Sends events at a steady rate, and goes on where the broker refuses or loses some.

    What counts for the oracle is what stands in the topic.
    """

    def __init__(self, env: Environment, records: Sequence[Record]) -> None:
        super().__init__(daemon=True)
        self._env, self._records = env, records
        self._pace = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Send all."""
        for first in range(0, len(self._records), _CHUNK):
            chunk = self._records[first : first + _CHUNK]
            with suppress(AssertionError, KafkaException):
                produce(self._env, chunk)
            self.sent += len(chunk)
            self._pace.wait(_CHUNK_SECONDS)


class Watcher(threading.Thread):
    """Reads views again and again; `faults` tells what no reader may ever see."""

    def __init__(self, env: Environment) -> None:
        super().__init__(daemon=True)
        self._env = env
        self._ended = threading.Event()
        self.faults: list[str] = []
        self.looks = 0

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(60)

    def run(self) -> None:
        """Look until it is ended; a ClickHouse that is away shows nothing wrong."""
        seen: dict[tuple[str, object], tuple[int, int]] = {}
        while not self._ended.wait(0.5):
            for view in _WATCHED:
                try:
                    rows = view_rows(self._env, view)
                except AssertionError as error:
                    self.faults.append(str(error))
                    continue
                except Exception:
                    continue
                self.looks += 1
                for key, row in rows.items():
                    now = row.views, row.unique_users
                    before = seen.get((view, key), (0, 0))
                    if now[0] < before[0] or now[1] < before[1]:
                        self.faults.append(f"{view} {key} went from {before} to {now}")
                    seen[view, key] = now
                if view == SITE:
                    self._look_at_sum(sum(row.views for row in rows.values()))

    def _look_at_sum(self, counted: int) -> None:
        topic = self._env.stream.topic
        with suppress(Exception):
            there = sum(end_offsets(self._env.settings.kafka_client, topic).values())
            if counted > there:
                self.faults.append(f"{counted} events counted of {there}")
