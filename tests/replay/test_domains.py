"""Rebuilds of jobs that read several streams, and of views that answer events as they arrive."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.generators import words as word_lines
from deploy.settings import PROJECT_ROOT
from jobs.catalogue import job_named
from jobs.plan import JobPlan, plan
from jobs.status import job_offsets
from replay.build import output_topics
from schemas.topics import end_offsets, topic_names
from sinks.lag import LagReader
from tests.harness import Environment, rows, start_loader, wait_for
from tests.replay.running import done, live_jobs, newest, refused, shown, steadily
from tests.views import orders, transactions, words
from tests.views.domains import DOMAINS
from tests.views.world import Sender, ordered, view_rows

pytestmark = pytest.mark.long

SECONDS = 300
RULE = "amount_cents, -amount_cents)"


def test_a_job_of_several_streams_is_rebuilt_promoted_rolled_back_and_retired(
    empty: Environment, tmp_path: Path
) -> None:
    env, sender = empty, Sender(empty, orders)
    expected = sender.expected()
    sender.prepare()
    # Version 1 forgets what refunds take away from a day's sales.
    right = (PROJECT_ROOT / "jobs" / "orders.py").read_text()
    assert right.count(RULE) == 1
    wrong = tmp_path / "orders.py"
    wrong.write_text(right.replace(RULE, "amount_cents, 0)"))
    sender.submit(script=wrong)
    start_loader(env)
    sender.send(0, 2)
    await_some(env, orders, "customer_orders")
    # What a stream's panes gave comes after the first rows of SQL.
    accounted = {f"{stream.name}_accounting" for stream in sender.streams.values()}
    wait_for(lambda: accounted <= shown(env).keys(), SECONDS, "all accounting is shown")

    built = done(env, "build", "--expect-column", "daily_sales.sales_cents", "--yes")
    streams = sender.streams.values()
    assert set(built["plan"]["pinned"]) == {stream.name for stream in streams}
    sender.send(1, 2)
    sender.close()
    right_ones = {v: of for v, of in expected.items() if v != "daily_sales"}
    await_rows(env, orders, right_ones)
    await_rows(env, orders, right_ones, version=2)
    await_all_read(env, "orders")
    report = done(env, "verify")
    assert (report["unexplained"], report["counts"]["explained"]) == (0, 0)
    assert report["counts"]["expected"] > 0
    found = {view["view"]: view for view in report["views"]}
    assert {name for name, view in found.items() if view["counts"]["expected"]} == {"daily_sales"}
    # The hours after the last change of a segment count as well: Flink has passed them.
    changed = max(change["event_time"] for change in sender.events["customer_segments"])
    assert any(row[2] > changed for row in expected["sales_by_segment"])
    assert_compared(found, expected)

    wrong_sales = view_rows(env, orders, "daily_sales")
    assert wrong_sales != ordered(expected["daily_sales"])
    done(env, "promote", "--yes")
    assert set(shown(env).values()) == {2}
    await_rows(env, orders, expected)
    done(env, "rollback", "--yes", "--reason", "to see the old one again")
    assert view_rows(env, orders, "daily_sales") == wrong_sales
    done(env, "promote", "--yes")
    done(env, "retire", "--now", "--yes")
    await_rows(env, orders, expected)
    assert_nothing_left(env, "orders", 1)
    assert live_jobs(env) == ["orders.v2"]


def test_what_follows_events_as_they_arrive_is_rebuilt_without_a_second_alert(
    empty: Environment,
) -> None:
    env = empty
    _, expected = go_live(env, transactions)
    live = job_plan(env, "transactions", 1)
    told = {view: ends(env, live, view) for view in ("fraud_alerts", "card_blocks")}

    done(env, "build", "--yes", "--max-rate", "100000")
    report = done(env, "verify")
    assert (report["unexplained"], sum(report["counts"].values())) == (0, 0)
    assert_compared({view["view"]: view for view in report["views"]}, expected)
    for view, before in told.items():
        assert ends(env, live, view) == before
        assert both_versions(env, view)
    done(env, "promote", "--yes")
    await_rows(env, transactions, expected)
    assert "can be retired from" in refused(env, "retire", "--yes")
    done(env, "rollback", "--yes")
    done(env, "abort", "--yes")
    assert newest(env).state == "aborted"
    await_rows(env, transactions, expected)
    assert_nothing_left(env, "transactions", 2)
    assert live_jobs(env) == ["transactions"]


def test_versions_are_compared_while_events_keep_coming(empty: Environment) -> None:
    env = empty
    sender, expected = go_live(env, words)
    done(env, "build", "--yes")
    with traffic(sender):
        wait_for(lambda: view_rows(env, words, "word_counts"), SECONDS, "new words", until=has_tick)
        report = done(env, "verify")
    assert report["unexplained"] == 0
    assert not report["cut"]["all_rows"]
    (view,) = report["views"]
    # What the traffic brings is held between two looks, all else is compared as it stands: the
    # word that closed, too.
    assert (view["moving_rows"], view["bracketed"]["rows"]) == (0, 2)
    assert view["rows"]["old"] == view["rows"]["new"] == len(expected["word_counts"]) + 1


def has_tick(found: list[tuple[Any, ...]]) -> bool:
    return any(row[0] == "tick" for row in found)


def traffic(sender: Sender) -> AbstractContextManager[None]:
    """Send lines of two words that no other line has, five a second, while the block runs."""
    newest = words.START + 4 * 24 * 3_600_000

    def send(number: int) -> None:
        line = {"event_id": f"line-{number}", "text": "tick tock"}
        sender.send_one("words", word_lines.event(newest + 200 * number, **line))

    return steadily(send)


@pytest.mark.parametrize("name", sorted(DOMAINS.keys() - {"orders", "transactions"}))
def test_a_rebuild_gives_the_rows_of_the_oracle(empty: Environment, name: str) -> None:
    env, domain = empty, DOMAINS[name]
    _, expected = go_live(env, domain)
    done(env, "build", "--job", name, "--yes")
    report = done(env, "verify")
    assert (report["unexplained"], sum(report["counts"].values())) == (0, 0)
    assert_compared({view["view"]: view for view in report["views"]}, expected)
    done(env, "promote", "--yes")
    assert set(shown(env).values()) == {2}
    await_rows(env, domain, expected)


def go_live(
    env: Environment, domain: ModuleType
) -> tuple[Sender, Mapping[str, list[tuple[Any, ...]]]]:
    """Run the domain's job over all its events; return the sender and the oracle's rows."""
    sender = Sender(env, domain)
    expected = sender.expected()
    sender.prepare()
    sender.submit()
    start_loader(env)
    sender.send(0, 1)
    sender.close()
    await_rows(env, domain, expected)
    return sender, expected


def await_some(env: Environment, domain: ModuleType, view: str) -> None:
    """Wait until people see rows of `view`."""
    wait_for(lambda: view_rows(env, domain, view), SECONDS, f"rows of {view}")


def await_rows(
    env: Environment,
    domain: ModuleType,
    expected: Mapping[str, list[tuple[Any, ...]]],
    version: int | None = None,
) -> None:
    """Wait until the oracle's rows are in each view, as people see it or at `version`."""
    for view, wanted in expected.items():
        found = wait_for(
            partial(view_rows, env, domain, view, version),
            SECONDS,
            f"{view}: the oracle's {len(wanted)} rows",
            until=partial(operator.eq, ordered(wanted)),
        )
        assert found, view


def assert_compared(
    found: Mapping[str, Any], expected: Mapping[str, list[tuple[Any, ...]]]
) -> None:
    """Assert that the comparison looked at all the oracle's rows in both versions."""
    assert set(found) == set(expected)
    for name, view in found.items():
        assert view["rows"]["old"] == view["rows"]["new"] >= len(expected[name]), name
        assert view["moving_rows"] == 0


def job_plan(env: Environment, job: str, version: int) -> JobPlan:
    return plan(job_named(job).within(env.settings.namespace), version)


def await_all_read(env: Environment, job: str) -> None:
    """Wait until both versions have checkpointed all events, so that no row is left out as new."""
    reader = LagReader(env.settings.kafka_client)
    for version in (1, 2):
        reading = job_plan(env, job, version)
        wanted = {
            source.stream.name: end_offsets(env.settings.kafka_client, source.topic)
            for source in reading.inputs
        }
        wait_for(
            partial(job_offsets, reader, reading),
            SECONDS,
            f"version {version} has read all",
            until=lambda read, wanted=wanted: read == wanted,
        )


def ends(env: Environment, job: JobPlan, view: str) -> dict[int, int]:
    """Return the ends of the topic of `view`."""
    return end_offsets(env.settings.kafka_client, job.topics[view])


def both_versions(env: Environment, view: str) -> bool:
    """Return whether versions 1 and 2 of `view` have the same rows, and any."""
    database = env.settings.database
    columns = ", ".join(transactions.COLUMNS[view])
    one, two = (
        ordered(rows(env, f"SELECT {columns} FROM {database}.{view}_v{version} FINAL"))
        for version in (1, 2)
    )
    return bool(one) and one == two


def assert_nothing_left(env: Environment, job: str, version: int) -> None:
    """Assert that no topic, table, letter or consumer group of the version is there any more."""
    gone = job_plan(env, job, version)
    assert not topic_names(env.settings.kafka_client) & set(output_topics(gone))
    names = ", ".join(f"'{view.table(version)}'" for view in gone.views)
    database = env.settings.database
    assert rows(
        env,
        f"SELECT count() FROM system.tables WHERE database = '{database}' AND name IN ({names})",
    ) == [(0,)]
    reader = LagReader(env.settings.kafka_client)
    assert not any(reader.committed(group) for group in gone.groups)
