"""An open window shows its rows while it is open; a late event corrects its own row."""

from __future__ import annotations

import time

import pytest

from tests import datasets
from tests.harness import Environment, produce, read_topic, register, start, view_rows, wait_for
from tests.oracle import MINUTE, PER_MINUTE, SECOND, SITE, SLIDING, Row, Rows
from tests.settling import settle

OPEN = datasets.EVENING - datasets.HOUR
START = datasets.EVENING
VIEWS = (PER_MINUTE, SLIDING, SITE)


@pytest.fixture(scope="module")
def running(shared: Environment) -> Environment:
    register(shared, datasets.V1)
    start(shared)
    return shared


def send(env: Environment, *visits: tuple[int, str, str]) -> None:
    """Send visits of one partition, each with its time, page and user."""
    drafts = []
    for moment, page, user in visits:
        event = {"event_id": f"at-{moment}", "event_time": moment, "user_id": user}
        event |= {"page_id": page, "duration_ms": moment % 1000}
        value = datasets.frame(event, min(env.registered))
        drafts.append((0, moment, user.encode(), value))
    produce(env, datasets.numbered(drafts))


def test_an_open_window_has_rows_within_seconds(running: Environment) -> None:
    for count in (1, 2, 3):
        send(running, (OPEN + count * SECOND, "/open", "x"))
        sent = time.monotonic()
        wait_for(
            lambda: view_rows(running, PER_MINUTE)[OPEN, "/open"].views,
            15,
            f"the open minute has {count} events",
            until=count.__eq__,
        )
        print(f"visible after {time.monotonic() - sent:.1f} s")
    verdict = settle(running)
    assert max(verdict.watermarks.values()) < OPEN + MINUTE
    assert view_rows(running, SITE)[OPEN, None] == Row(None, OPEN, OPEN + MINUTE, 3, 1, 0.0, 0)


def test_a_late_event_updates_its_own_minute_and_no_other_row(running: Environment) -> None:
    before = [(5, "/a"), (20, "/b"), (70, "/a"), (200, "/a")]
    send(running, *((START + s * SECOND, page, "x") for s, page in before))
    settle(running)
    first = {view: view_rows(running, view) for view in VIEWS}
    counts = {view: len(read_topic(running, running.view_topic(view))) for view in VIEWS}

    send(running, (START + 30 * SECOND + 900, "/a", "y"))
    settle(running)
    assert changed(first[PER_MINUTE], view_rows(running, PER_MINUTE)) == [
        Row("/a", START, START + MINUTE, views=2, unique_users=2, avg_duration_ms=450.0, errors=0)
    ]
    assert changed(first[SITE], view_rows(running, SITE)) == [
        Row(None, START, START + MINUTE, views=3, unique_users=2, avg_duration_ms=300.0, errors=0)
    ]
    slid = changed(first[SLIDING], view_rows(running, SLIDING))
    starts = [START + minute * MINUTE for minute in range(-4, 1)]
    assert [(row.page_id, row.window_start) for row in slid] == [("/a", each) for each in starts]

    written = {view: len(read_topic(running, running.view_topic(view))) for view in VIEWS}
    assert {view: written[view] - counts[view] for view in VIEWS} == {
        PER_MINUTE: 1,
        SITE: 1,
        SLIDING: 5,
    }


def changed(before: Rows, after: Rows) -> list[Row]:
    assert before.keys() <= after.keys()
    return [after[key] for key in sorted(after) if after[key] != before.get(key)]
