"""A transaction that Kafka aborts after its checkpoint is complete: seen, told, and rebuilt."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from kafka import KafkaAdminClient

from deploy.flink import place_of
from deploy.services import MONITOR_METRICS_PORT
from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.commits import Coordinators, by_job
from jobs.state import loss_of
from jobs.submit import SubmissionFailed
from tests.faults.scene import BACK_SECONDS, Scene
from tests.harness import (
    PANE_VIEWS,
    TimedOut,
    environment,
    kappa,
    produce,
    read_topic,
    standing_still,
    submit_page_views,
    wait_for,
)
from tests.oracle import Record, judge
from tests.replay import running
from tests.settling import wait_for_rows

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

_TRANSACTION_SECONDS = 30.0
_ATTEMPTS = 8


@pytest.fixture
def scene(stack: Stack) -> Iterator[Scene]:
    with environment(stack) as env:
        found = Scene(stack, env, random.Random(3))
        found.begin(transaction_timeout_seconds=_TRANSACTION_SECONDS, checkpoint_seconds=4)
        yield found


def test_an_outage_longer_than_the_transaction_timeout_stops_the_job_until_a_rebuild(
    scene: Scene,
) -> None:
    traffic = scene.traffic(3_000)
    produce(scene.env, traffic[:1_000])
    scene.settled()
    # What was committed and is committed once more, after a restart, is no loss.
    scene.await_checkpoint()
    scene.kill("taskmanager")
    scene.settled()

    with precommitted(scene, traffic[1_000:2_000]) as checkpoint:
        with scene.paused("kafka"):
            threading.Event().wait(_TRANSACTION_SECONDS + 5)
        await_aborted(scene, checkpoint)
    cluster, name = Cluster(scene.env.settings.flink), scene.env.job_name
    wait_for(lambda: cluster.live_job(name) is None, BACK_SECONDS, "the job is stopped")
    loss = loss_of(cluster, name)
    assert loss is not None
    assert set(loss.transactions) <= set(aborted_of(scene))
    assert "its views lack them until they are rebuilt" in scene.problems()
    assert wait_for(lambda: lost_metric(scene), 60, "the monitor tells") == len(loss.transactions)
    with pytest.raises(SubmissionFailed, match="--accept-lost-rows"):
        submit_page_views(scene.env)

    produce(scene.env, traffic[2_000:])
    views = [word for view in PANE_VIEWS for word in ("--view", view)]
    kappa(scene.env, "submit", "page_views", "--accept-lost-rows", *views)
    running.done(scene.env, "run", *PANE_VIEWS, "--force", "rows were lost", "--yes")
    events = [message.record for message in read_topic(scene.env, scene.env.stream.topic)]
    wait_for_rows(scene.env, judge(events, scene.env.registered), BACK_SECONDS)
    assert cluster.live_job(name), "what was accepted stopped the job once more"


@contextmanager
def precommitted(scene: Scene, events: Sequence[Record]) -> Iterator[int]:
    """Yield the number of a complete checkpoint whose transactions are not committed.

    The TaskManager, which would commit them, stands still from before it is told until the end.
    The JobManager stands still from the checkpoint's begin until the tasks have done their part;
    where it had not begun yet, or was through already, the next one has to do.
    """
    jobmanager = psutil.Process(scene.pid("jobmanager"))
    for attempt in range(_ATTEMPTS):
        share = len(events) // _ATTEMPTS
        produce(scene.env, events[attempt * share : (attempt + 1) * share])
        with ExitStack() as taskmanager:
            with standing_still_at_begin(scene, jobmanager) as folder:
                threading.Event().wait(3)
                taskmanager.enter_context(scene.paused("taskmanager"))
            if (number := complete_and_open(scene, folder)) is not None:
                yield number
                return
    raise AssertionError(f"none of {_ATTEMPTS} checkpoints stood between pre-commit and commit")


def complete_and_open(scene: Scene, folder: Path) -> int | None:
    """Return the number of the checkpoint in `folder` if it is complete and not committed."""
    number = int(folder.name.removeprefix("chk-"))
    try:
        wait_for((folder / "_metadata").exists, 10, "the checkpoint is complete")
        wait_for(lambda: number in open_checkpoints(scene), 5, "it is not committed")
    except TimedOut:
        return None
    return number


@contextmanager
def standing_still_at_begin(scene: Scene, jobmanager: psutil.Process) -> Iterator[Path]:
    """Stop the JobManager as soon as a checkpoint has a folder; yield the folder."""
    base = place_of(scene.env.settings) / "checkpoints" / scene.env.job_name

    def folders() -> set[Path]:
        return set(base.glob("*/chk-*"))

    known, ends = folders(), time.monotonic() + 60
    while not (new := folders() - known):
        assert time.monotonic() < ends, "no checkpoint begins"
        threading.Event().wait(0.005)
    threading.Event().wait(0.05)
    with standing_still([jobmanager]):
        yield max(new)


def open_checkpoints(scene: Scene) -> set[int]:
    """Return the numbers of the job's checkpoints whose transactions are open in Kafka."""
    admin = KafkaAdminClient(bootstrap_servers=scene.env.settings.kafka)
    try:
        listed = admin.list_transactions(state_filters=["Ongoing"])
    finally:
        admin.close()
    names = [one.transactional_id for found in listed.values() for one in found]
    return {one.checkpoint for one in by_job(names).get(scene.env.job_name, [])}


def aborted_of(scene: Scene) -> dict[str, int]:
    """Return the job's aborted transactions with their checkpoints' numbers."""
    coordinators = Coordinators(scene.env.settings.kafka_client)
    try:
        aborted = by_job(coordinators.aborted()).get(scene.env.job_name, [])
        return {one.name: one.checkpoint for one in aborted}
    finally:
        coordinators.close()


def await_aborted(scene: Scene, checkpoint: int) -> None:
    """Wait until the broker has aborted transactions of `checkpoint`."""
    wait_for(
        lambda: checkpoint in aborted_of(scene).values(), 60, "Kafka aborts what is open for long"
    )


def lost_metric(scene: Scene) -> float:
    """Return how many lost transactions of the job the stack's monitor tells of."""
    port = scene.stack.settings.port(MONITOR_METRICS_PORT)
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    found = re.search(rf'kappa_lost_transactions{{job_name="{scene.env.job_name}"}} (.+)', text)
    return float(found[1]) if found else 0.0
