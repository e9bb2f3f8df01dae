"""`kappa replay late`: late events end up in their windows, and nothing else changes."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas.topics import end_offsets
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    read_topic,
    register,
    rows,
    start,
    start_loader,
    topic_rows,
    view_rows,
    wait_for,
)
from tests.oracle import (
    MINUTE,
    PER_MINUTE,
    SITE,
    SLIDING,
    PageView,
    Record,
    Rows,
    Verdict,
    all_views,
    judge,
)
from tests.replay.running import SUBMIT, done, project_with, refused, run, visit
from tests.replay.running import start as start_kappa
from tests.settling import difference, settle, view_difference

pytestmark = pytest.mark.long

VIEWS = (PER_MINUTE, SLIDING, SITE)
Place = tuple[int, int]


@pytest.fixture
def late(empty: Environment) -> Environment:
    """Return a namespace whose live views lack some late events, all of windows long closed."""
    schema_id = register(empty, datasets.V1)
    start(empty)
    produce(empty, traffic(schema_id))
    return empty


def traffic(schema_id: int) -> list[Record]:
    """Return events in time, late within and beyond what is allowed, and broken; then the edges."""
    begin = datasets.EVENING - 4 * datasets.HOUR
    mixed = datasets.dense_traffic(
        schema_id, events=5_000, late_share=0.05, broken_share=0.01, start=begin, seed=12
    )
    return [*mixed, *datasets.late_events(schema_id)]


def test_late_events_repair_their_own_windows_once(late: Environment) -> None:
    verdict = settle(late, 120)
    whole = with_late(late, verdict, verdict.late)
    dry = dry_run(late, PER_MINUTE, "ready", set(verdict.late))
    before, after = verdict.views[PER_MINUTE], whole[PER_MINUTE]
    assert len(dry["rows"]) == len([key for key in after if before.get(key) != after[key]])
    assert view_rows(late, PER_MINUTE) == before

    for view in VIEWS:
        assert done(late, "late", view, "--yes")["repair"] > 0
        assert_rows(late, view, whole[view])
        assert repaired(late, view) == set(verdict.late)

    ends = end_offsets(late.settings.kafka_client, late.view_topic(SLIDING))
    again = done(late, "late", SLIDING, "--yes")
    assert (again["repair"], again["rows"], places(again, "ready")) == (None, [], set())
    assert places(again, "repaired") == set(verdict.late)
    assert end_offsets(late.settings.kafka_client, late.view_topic(SLIDING)) == ends
    kept = rows(late, f"SELECT partition, offset FROM {late.settings.database}.late_events")
    assert set(kept) == set(verdict.late)


def test_windows_that_the_job_may_still_write_wait(late: Environment) -> None:
    schema_id = min(late.registered)
    first = settle(late, 120)
    dry_run(late, SITE, "ready", set(first.late))
    done(late, "late", SITE, "--yes")
    ahead = datasets.EVENING + 6 * datasets.HOUR
    # Partition 1 is an hour ahead of the others, and late there is not late everywhere.
    moments = (ahead, ahead - 20 * MINUTE)
    one = [visit(1, moment, schema_id, "/waits") for moment in moments]
    produce(late, one)
    verdict = judged(late)
    wait_for(
        lambda: len(read_topic(late, late.stream.late_topic())),
        60,
        "the job has found it late",
        until=lambda count: count == len(verdict.late),
    )
    before = with_late(late, verdict, set(verdict.late) - last_late(verdict))[SITE]
    assert_rows(late, SITE, before)
    dry_run(late, SITE, "waiting", last_late(verdict))
    waits = done(late, "late", SITE, "--yes")
    assert (waits["repair"], waits["rows"]) == (None, [])

    produce(late, [visit(number, ahead, schema_id, "/waits") for number in (0, 2, 3)])
    verdict = judged(late)
    assert_rows(late, SITE, with_late(late, verdict, set(verdict.late) - last_late(verdict))[SITE])
    dry_run(late, SITE, "ready", last_late(verdict))
    assert places(done(late, "late", SITE, "--yes"), "ready") == last_late(verdict)
    assert_rows(late, SITE, with_late(late, verdict, verdict.late)[SITE])


def test_verify_explains_what_a_repair_folded_in_and_a_rebuild_left_out(late: Environment) -> None:
    verdict = settle(late, 240)
    rebuilt, repaired_rows = verdict.views, with_late(late, verdict, verdict.late)
    changed = [k for k, row in repaired_rows[SITE].items() if rebuilt[SITE].get(k) != row]
    dry_run(late, SITE, "ready", set(verdict.late))
    done(late, "late", SITE, "--yes")
    done(late, "build", "--yes")

    report = done(late, "verify")
    assert report["unexplained"] == 0
    counts = {view["view"]: view["counts"] for view in report["views"]}
    assert {name: of["explained"] for name, of in counts.items() if any(of.values())} == {
        SITE: len(changed)
    }
    [site] = [view for view in report["views"] if view["view"] == SITE]
    named = [event for sample in site["samples"] for event in sample["events"]]
    assert {(event["verdict"], event["version"]) for event in named} == {("late", 2)}
    assert {(event["partition"], event["offset"]) for event in named} <= set(verdict.late)

    done(late, "promote", "--yes")
    assert_shown(late, SITE, rebuilt[SITE])
    assert places(done(late, "late", SITE, "--yes"), "ready") == set(verdict.late)
    assert_shown(late, SITE, repaired_rows[SITE])
    assert done(late, "verify")["counts"] == {"expected": 0, "explained": 0, "unexplained": 0}


def test_a_repair_killed_at_every_step_is_ended_by_the_same_command(late: Environment) -> None:
    verdict = settle(late, 120)
    whole = with_late(late, verdict, verdict.late)[PER_MINUTE]
    dry_run(late, PER_MINUTE, "ready", set(verdict.late))
    kill_at(late, "started")
    kafka, topic = late.settings.kafka_client, late.view_topic(PER_MINUTE)
    wait_for(
        lambda: end_offsets(kafka, topic, read_committed=True),
        60,
        f"no transaction is open on {topic}",
        until=lambda committed: committed == end_offsets(kafka, topic),
    )
    # All rows of the repair, or none.
    assert topic_rows(late, PER_MINUTE) in (verdict.views[PER_MINUTE], whole)
    with psycopg.connect(late.settings.postgres) as blocker:
        blocker.execute("LOCK TABLE kappa.repaired_events IN EXCLUSIVE MODE")
        kill_at(late, "written")
    assert_rows(late, PER_MINUTE, whole)
    ended = done(late, "late", PER_MINUTE, "--yes")
    assert ended["rows"] == []
    assert repaired(late, PER_MINUTE) == set(verdict.late)
    assert_rows(late, PER_MINUTE, whole)
    assert states(late) == ["interrupted", "interrupted", "done"]


def test_a_view_that_another_rule_wrote_is_refused(empty: Environment, tmp_path: Path) -> None:
    right, wrong = '"errors": Count("status", ">=", 500', '"errors": Count("status", ">=", 200'
    project = project_with(tmp_path, "jobs/page_views.py", {right: wrong})
    schema_id = register(empty, datasets.V1)
    create_topic(empty)
    start_loader(empty)
    assert run(empty, *SUBMIT, project=project).returncode == 0
    produce(empty, traffic(schema_id))
    wait_for(lambda: view_rows(empty, SITE), 60, "there are rows")
    wait_for(lambda: len(read_topic(empty, empty.stream.late_topic())) > 100, 60, "late events")
    assert "are not what its events give by the code of now" in refused(empty, "late", SITE)
    assert '"sight" is no view' in refused(empty, "late", "sight")


def dry_run(env: Environment, view: str, state: str, wanted: set[Place]) -> dict[str, Any]:
    """Return the dry run's report once the job's checkpoints cover what it is asked about."""
    found: dict[str, Any] = wait_for(
        lambda: done(env, "late", view, "--dry-run"),
        60,
        f"the events that are {state} are the {len(wanted)} wanted",
        until=lambda report: places(report, state) == wanted,
    )
    return found


def judged(env: Environment) -> Verdict:
    """Return the oracle's verdict on the events in the topic."""
    return judge([m.record for m in read_topic(env, env.stream.topic)], env.registered)


def with_late(env: Environment, verdict: Verdict, which: Any) -> dict[str, Rows]:
    """Return the rows that the events in time and the late ones of `which` give together."""
    records = {m.record.place: m.record for m in read_topic(env, env.stream.topic)}
    events: list[PageView] = list(verdict.aggregated.values())
    for place in which:
        # Alone in its partition no event is late.
        events += judge([records[place]], env.registered).aggregated.values()
    return all_views(events)


def last_late(verdict: Verdict) -> set[Place]:
    """Return the one late event of the newest window that has any."""
    newest = max(verdict.late, key=lambda place: verdict.late[place])
    return {newest}


def assert_rows(env: Environment, view: str, wanted: Rows) -> None:
    """Wait until topic and table of `view` show exactly the rows wanted."""
    for look in (topic_rows, view_rows):
        wait_for(
            partial(lambda of: difference(wanted, of(env, view)), look),
            60,
            f"{view}: late events are in their windows",
            until=lambda text: text == "",
        )


def assert_shown(env: Environment, view: str, wanted: Rows) -> None:
    """Wait until people see exactly the rows wanted."""
    wait_for(
        partial(view_difference, env, view, wanted),
        120,
        f"people see the rows wanted in {view}",
        until=lambda text: text == "",
    )


def places(report: dict[str, Any], state: str) -> set[Place]:
    """Return the events that the command counts under `state`."""
    return {(event["partition"], event["offset"]) for event in report["events"][state]}


def repaired(env: Environment, view: str) -> set[Place]:
    """Return the events that ClickHouse shows as folded into `view`."""
    table = f"{env.settings.database}.repaired_events"
    return set(rows(env, f"SELECT partition, offset FROM {table} FINAL WHERE view = '{view}'"))


def states(env: Environment) -> list[str]:
    """Return the states of all repairs of the namespace, oldest first."""
    with psycopg.connect(env.settings.postgres) as connection:
        found = connection.execute(
            "SELECT state FROM kappa.repairs WHERE namespace = %s ORDER BY id",
            (env.settings.namespace,),
        ).fetchall()
    return [state for (state,) in found]


def kill_at(env: Environment, state: str) -> None:
    """Run a repair and end it with SIGKILL once its journal says `state`."""
    process = start_kappa(env, "replay", "late", PER_MINUTE, "--yes")
    deadline = time.monotonic() + 60
    try:
        # A step may take some milliseconds only, so there is no pause between two looks.
        while states(env)[-1:] != [state]:
            assert process.poll() is None, f"it ended before {state}: {process.communicate()[1]}"
            assert time.monotonic() < deadline, f"it was never {state}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
