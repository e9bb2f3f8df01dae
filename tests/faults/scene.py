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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import psutil
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from deploy.flink import place_of
from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.state import loss_of
from schemas.topics import end_offsets, partition_count
from sinks.lag import LagReader
from sinks.loader import group_of
from tests import datasets
from tests.harness import (
    PANE_VIEWS,
    Environment,
    create_topic,
    kappa,
    produce,
    register,
    standing_still,
    start_loader,
    stop_loader,
    submit_page_views,
    view_rows,
    wait_for,
)
from tests.oracle import SITE, Record, Verdict
from tests.settling import assert_offsets, assert_status, settle

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

    def begin(self, views: tuple[str, ...] = PANE_VIEWS, **options: float) -> None:
        """Start the job with these views and with `options` of its own, and the loader."""
        self.schema_id = register(self.env, datasets.V1)
        create_topic(self.env)
        submit_page_views(self.env, views, options=options)
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
        assert_status(self.env, verdict, deadline_seconds=BACK_SECONDS)
        assert_offsets(self.env, verdict)
        wait_for(self.checkpoints, 60, "a checkpoint completes", until=lambda n: n != checkpoints)
        lags = LagReader(self.env.settings.kafka_client)
        prefix = self.env.settings.topic_prefix
        wait_for(
            lambda: all(place.stable == place.end for place in lags.stable_offsets(prefix)),
            60,
            "no transaction is left open",
        )
        # What is committed once more after a restart is no loss, and must not stop the job.
        assert loss_of(Cluster(self.env.settings.flink), self.env.job_name) is None
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

    def await_unreadable_checkpoints(self) -> None:
        """Wait until the job, which restarts as a checkpoint failed, finds none to go on from."""
        cluster = Cluster(self.env.settings.flink)
        job_id, _ = self.checkpoints()
        wait_for(
            lambda: cluster.failure(job_id),
            BACK_SECONDS,
            "a restart fails",
            until=lambda text: "FileNotFoundException" in text,
        )

    def await_expired_checkpoint(self) -> None:
        """Wait until a checkpoint failed because it took longer than it may."""
        cluster = Cluster(self.env.settings.flink)
        job_id, _ = self.checkpoints()

        def why() -> str:
            history = cluster.get(f"/jobs/{job_id}/checkpoints")["history"]
            failed = [one for one in history if one["status"] == "FAILED"]
            return " ".join(str(one.get("failure_message")) for one in failed)

        wait_for(why, BACK_SECONDS, "a checkpoint expires", until=lambda text: "expired" in text)

    def of_unheard_schema(self) -> list[Record]:
        """Return events with a schema that nobody has asked the registry for yet."""
        number = len(self.env.registered)
        extra = {"name": f"extra_{number}", "type": ["null", "string"], "default": None}
        schema = {**datasets.V1, "fields": [*datasets.V1["fields"], extra]}
        schema_id = register(self.env, schema)
        at = self._start(self.rounds) + 20 * datasets.MINUTE
        users = [datasets.user_on(number) for number in range(datasets.PARTITIONS)]
        events = [self._event(user, at + n, f"{user}-{n}") for n in range(50) for user in users]
        return datasets.numbered([datasets.draft(one, schema_id, schema) for one in events])

    def send_strange_records(self) -> None:
        """Send what is no event, or of no time to speak of, and events that stand there already."""
        newest = self._start(self.rounds) + 20 * datasets.MINUTE
        users = [datasets.user_on(number) for number in range(datasets.PARTITIONS)]
        good = [self._event(user, newest, f"twice-{user}") for user in users]
        long_ago = [self._event(user, 1_000, f"1970-{user}") for user in users]
        drafts = [datasets.draft(event, self.schema_id) for event in (*good, *good, *long_ago)]
        drafts += [(part, newest, key, None) for part, _, key, _ in drafts[: len(good)]]
        negative = [
            datasets.draft({**event, "event_time": -event["event_time"]}, self.schema_id)
            for event in good
        ]
        drafts += [(part, newest, key, value) for part, _, key, value in negative]
        produce(self.env, datasets.numbered(drafts))

    def refuse_the_future(self) -> None:
        """Try to send an event of ten years ahead, which would be the end of every window."""
        ahead = round(time.time() * 1000) + 10 * 365 * 24 * datasets.HOUR
        event = self._event(datasets.user_on(0), ahead, "ahead")
        [record] = datasets.numbered([datasets.draft(event, self.schema_id)])
        with pytest.raises(AssertionError, match="timestamp"):
            produce(self.env, [record])

    @staticmethod
    def _event(user: str, at: int, event_id: str) -> datasets.Event:
        return {"event_id": event_id, "event_time": at, "user_id": user, "page_id": "/strange"}

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
        with self.paused(part):
            threading.Event().wait(seconds)

    @contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """Have a part of the stack stand still meanwhile, with all that it started."""
        first = psutil.Process(self.pid(part))
        with standing_still([first, *first.children(recursive=True)]):
            yield
        self.stack.wait_healthy(part, BACK_SECONDS)

    def pid(self, part: str) -> int:
        """Return the process id of a part that is well."""
        pid = self.stack.wait_healthy(part, BACK_SECONDS).pid
        assert pid is not None
        return pid

    def problems(self) -> str:
        """Return what `kappa status` finds wrong with the job."""
        jobs = kappa(self.env, "status")["jobs"]
        return " ".join(next(job for job in jobs if job["name"] == self.env.job_name)["problems"])

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

    def __init__(self, env: Environment, views: Sequence[str] = _WATCHED) -> None:
        super().__init__(daemon=True)
        self._env, self._views = env, views
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
            for view in self._views:
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
