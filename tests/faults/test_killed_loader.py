"""A loader killed before and after its insert, before and after its commit: rows are right."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from deploy.stack import Stack
from tests.harness import standing_still, wait_for
from tests.sinks.loading import Row, Sandbox, Tap

ROWS: list[Row] = [
    (f"/{key % 97}", key, key * 10 + revision) for revision in range(2) for key in range(500)
]
NEWEST = sorted({(page, minute): (page, minute, views) for page, minute, views in ROWS}.values())


@pytest.fixture
def written(sandbox: Sandbox) -> Sandbox:
    sandbox.create(sandbox.topic())
    sandbox.write(sandbox.topic(), ROWS)
    return sandbox


def inserted(sandbox: Sandbox) -> int:
    [(exists,)] = sandbox.rows(f"EXISTS TABLE {sandbox.settings.database}.counts_v1")
    return int(sandbox.rows("SELECT count() FROM counts_v1")[0][0]) if exists else 0


@contextmanager
def held_at_its_insert(
    sandbox: Sandbox, *, after: bool
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """Yield a loader whose insert, or with `after` the answer to it, waits for the event."""
    reached, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        goes_on.wait(60)

    tap = Tap(sandbox.settings.clickhouse_http_port, hold, after=after)
    try:
        with sandbox.process(clickhouse_port=tap.port) as process:
            assert reached.wait(60), "nothing is inserted"
            yield process, goes_on
    finally:
        tap.close()
        goes_on.set()


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_loader_killed_at_its_insert(written: Sandbox, after: bool) -> None:
    with held_at_its_insert(written, after=after) as (process, _):
        kill(process)
    assert (inserted(written) > 0) is after
    assert written.lag() > 0
    assert_all_there(written)


def test_a_loader_killed_before_its_commit(written: Sandbox, stack: Stack) -> None:
    broker = psutil.Process(stack.wait_healthy("kafka").pid)
    with (
        held_at_its_insert(written, after=True) as (process, goes_on),
        standing_still([broker]),
    ):
        # It gets its answer, and no broker takes the offsets that it commits now.
        goes_on.set()
        threading.Event().wait(1)
        kill(process)
        # One that woke up would read the request that was sent to it meanwhile.
        broker.kill()
    stack.wait_healthy("kafka", other_than=broker.pid)
    assert inserted(written) > 0
    assert written.lag() > 0
    assert_all_there(written)


@pytest.mark.long
def test_a_loader_killed_after_its_commit(written: Sandbox) -> None:
    # Partitions show a transaction a moment after it is committed.
    everything = wait_for(written.lag, 60, "rows can be read")
    with written.process() as process:
        wait_for(written.lag, 60, "an offset is committed", until=lambda lag: lag < everything)
        kill(process)
    assert inserted(written) > 0
    assert_all_there(written)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def assert_all_there(sandbox: Sandbox) -> None:
    with sandbox.loader():
        sandbox.wait_until_loaded()
    assert sandbox.counts() == NEWEST
