"""What Flink is asked to run: each event is decoded once, whatever the number of views."""

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from deploy.flink import client_environment, write_cluster_files
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import JOBS, UnknownJob, UnknownView, job_named, view_named
from jobs.orders import ORDER_PAYMENTS, UNMATCHED_ORDERS
from jobs.page_views import (
    PAGE_STATS,
    PAGE_VIEW_SESSIONS,
    SITE_TRAFFIC_PER_MINUTE,
    TOP_PAGES_PER_HOUR,
    TRAFFIC_ANOMALIES,
)
from jobs.plan import accounting_view, plan
from jobs.submit import _is_same
from jobs.views import InvalidView, Job, JoinView, Keeps, Tumbling, WindowView
from jobs.words import WORD_COUNTS
from replay.late_rows import REPAIRED_EVENTS
from schemas.columns import ColumnType
from schemas.streams import DEVICE_READINGS, ORDERS, PAGE_REQUESTS, PAGE_VIEWS, Stream
from sinks.cluster import LOCAL
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS
from sinks.pointers import POINTERS
from udfs.joins import Left, Right
from udfs.measures import CountDistinct, CountDistinctApprox, First, Max, Mean, Min, Sum
from udfs.panes import PaneStore

_HOUR = timedelta(hours=1)


@pytest.mark.stack
def test_an_event_is_decoded_once_for_all_views_dead_letters_and_late_events(tmp_path) -> None:
    settings = Settings(home=tmp_path)
    write_cluster_files(settings)
    done = subprocess.run(
        [sys.executable, "-m", "jobs.page_views", "--explain"],
        env=os.environ | client_environment(settings) | settings.environment(),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

    nodes = json.loads(done.stdout[done.stdout.index("{") :])["nodes"]

    kinds = [node["type"] for node in nodes]
    assert sum("Source: page_views_source" in kind for kind in kinds) == 1
    assert sum("PythonCalc" in kind for kind in kinds) == 1
    writers = [kind for kind in kinds if ": Writer" in kind]
    assert len(writers) == 1 + len(plan(JOBS["page_views"], 1).queries)


def test_views_with_the_same_key_and_pane_share_their_state() -> None:
    stores = plan(JOBS["page_views"], 1).inputs[0].stores

    panes = [store for store in stores if isinstance(store, PaneStore)]
    assert [(s.dimensions, [v.name for v in s.views]) for s in panes] == [
        (("page_id",), ["page_views_per_minute", "page_views_sliding"]),
        ((), ["site_traffic_per_minute"]),
        ((), ["unique_users_per_hour"]),
        ((), ["unique_users_per_day"]),
        (("source_partition",), ["page_views_accounting"]),
    ]
    assert [(s.dimensions, s.view) for s in stores if not isinstance(s, PaneStore)] == [
        (("user_id",), "page_view_sessions"),
        (("page_id",), "page_milestones"),
        (("page_id",), "page_stats"),
        ((), "top_pages"),
        (("page_id",), "traffic_anomalies"),
    ]


@pytest.mark.parametrize(
    ("job", "view", "waits"),
    [
        ("page_views", "page_views_per_minute", False),
        ("page_views", "page_stats", False),
        ("page_views", "page_view_sessions", True),
        ("page_views", "page_milestones", True),
        ("page_views", "traffic_anomalies", True),
        ("page_views", "top_pages", True),
        ("orders", "order_payments", False),
        ("orders", "unmatched_orders", True),
        ("orders", "revenue_per_minute", True),
        ("words", "word_counts", True),
    ],
)
def test_rows_that_are_never_early_wait_for_silent_partitions(
    job: str, view: str, waits: bool
) -> None:
    assert any(one.shows_when_over for one in plan(JOBS[job], 1, (view,)).inputs) is waits


def test_a_version_has_topics_of_its_own() -> None:
    second = plan(JOBS["page_views"].within("blue"), 2, ("page_views_sliding",))

    assert second.name == "blue.page_views.v2"
    assert second.topics == {
        "page_views_sliding": "blue.views.page_views_sliding.v2",
        "page_views_accounting": "blue.views.page_views_accounting.v2",
    }
    assert second.job.stream.dead_letter_topic(2) == "blue.dlq.page_views.v2"


def test_a_view_chosen_alone_brings_what_it_reads_and_writes_only_itself() -> None:
    alone = plan(JOBS["bidding"], 2, ("pacing_alerts",))

    assert [view.name for view in alone.queries] == ["pacing_alerts"]
    read = [view.name for view in alone.read_queries]
    assert read == ["campaign_spend_per_minute", "pacing_alerts"]
    assert {source.stream.name: source.columns for source in alone.inputs} == {
        "bid_requests": (),
        "bids": (),
        "impressions": ("request_id", "campaign_id", "price_micros", "daily_budget_micros"),
        "clicks": (),
    }


def test_a_query_must_read_its_streams_itself_or_through_an_earlier_view() -> None:
    bidding = JOBS["bidding"]
    by_name = {view.name: view for view in bidding.views}
    spend, alerts = by_name["campaign_spend_per_minute"], by_name["pacing_alerts"]

    Job("pacing", bidding.streams, (spend, alerts))
    with pytest.raises(InvalidView, match="pacing_alerts: its query does not read impressions"):
        Job("pacing", bidding.streams, (alerts, spend))


def test_views_over_the_same_pairs_share_what_is_kept() -> None:
    orders = JOBS["orders"].within("blue")

    (store,) = plan(orders, 1).joins
    assert [rows.name for rows in store.views] == [
        "order_payments",
        "unmatched_orders",
        "unmatched_payments",
    ]
    wider = replace(UNMATCHED_ORDERS.over({s.name: s for s in orders.streams}), after=_HOUR)
    both = Job("both", orders.streams, (*orders.views, replace(wider, name="never_paid")))
    assert [[rows.name for rows in one.views] for one in plan(both, 1).joins][1:] == [
        ["never_paid"]
    ]


def test_a_join_without_one_of_its_views_is_another_state() -> None:
    orders = JOBS["orders"]
    fewer = plan(orders, 1, ("order_payments", "unmatched_orders"))

    assert fewer.layout["order_payments"] != plan(orders, 1).layout["order_payments"]
    assert fewer.layout["orders_accounting"] == plan(orders, 1).layout["orders_accounting"]


def test_state_that_another_release_wrote_in_another_way_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of_jobs = [plan(JOBS[name], 1) for name in ("page_views", "orders", "words")]
    before = [one.layout for one in of_jobs]
    monkeypatch.setattr("jobs.plan.STATE_FORMAT", -1)

    for one, known in zip(of_jobs, before, strict=True):
        changed = {name for name, text in one.layout.items() if known[name] != text}
        assert changed == {v.name for v in one.views} - {v.name for v in one.queries}
        assert f"{one.job.name}_accounting" in changed


def test_more_lateness_needs_another_state_but_for_queries() -> None:
    job = JOBS["orders"]
    patient = {s.name: replace(s, allowed_lateness=2 * s.allowed_lateness) for s in job.streams}
    other = Job(job.name, tuple(patient.values()), tuple(v.over(patient) for v in job.views))

    before, after = plan(job, 1), plan(other, 1)

    changed = {one for one, text in after.layout.items() if not _is_same(before.layout[one], text)}
    assert changed == {v.name for v in after.views} - {v.name for v in after.queries}
    # As it was written before it told of lateness.
    for text in after.layout.values():
        assert _is_same(text.partition(", late up to ")[0], text)


def test_a_join_alone_keeps_only_what_its_columns_say() -> None:
    alone = plan(JOBS["orders"], 1, ("unmatched_payments",))

    (store,) = alone.joins
    assert [[name for name, _ in side.fields] for side in store.sides] == [
        [],
        ["event_time", "payment_id", "order_id", "paid_cents"],
    ]
    assert {one.stream.name: one.fields for one in alone.inputs} == {
        "orders": ("order_id", "status"),
        "payments": ("event_time", "order_id", "paid_cents", "payment_id"),
        "customer_segments": (),
    }


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"on": "customer_id"}, "stream payments has no field \\['customer_id'\\]"),
        ({"left_where": {"state": "placed"}}, "stream orders has no field \\['state'\\]"),
        ({"key_columns": ("payment",)}, "\\['payment'\\] is none of its columns"),
        ({"key_columns": ()}, "needs a key that is never null"),
        ({"instants": ("ordered_at", "told_at")}, "\\['told_at'\\] is none of its columns"),
        ({"before": -_HOUR}, "no less than zero"),
        ({"keeps": Keeps.LEFT_ALONE}, "has no values of the other side"),
    ],
)
def test_joins_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidView, match=f"order_payments: .*{complaint}"):
        replace(ORDER_PAYMENTS, **changes)


def test_a_join_is_on_a_text_that_is_always_there_and_takes_numbers_of_any_width() -> None:
    again = JoinView(
        name="again",
        left=PAGE_VIEWS,
        right=PAGE_VIEWS,
        on="page_id",
        before=timedelta(0),
        after=_HOUR,
        key_columns=("event_id",),
        values={
            "event_id": Right("event_id"),
            "status": Left("status"),
            "at": Left("event_time"),
        },
        instants=("at", "at"),
        description="Who asks for a page that somebody asked for.",
    )
    with pytest.raises(InvalidView, match="again: referrer must be a text that is never null"):
        replace(again, on="referrer")

    (store,) = plan(Job("again", (PAGE_VIEWS,), (again,)), 1).joins
    assert dict(store.sides[0].fields)["status"] == pa.int64()
    assert [(c.name, c.type) for c in again.columns][1:] == [
        ("status", ColumnType.LONG),
        ("at", ColumnType.TIMESTAMP),
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"grows": ("word", "times")}, r"grows names \['word', 'times'\], .*: occurrences"),
        ({"falls": ("word",)}, r"falls names \['word'\], .* beside the key"),
        (
            {"grows": ("occurrences",), "falls": ("occurrences",)},
            r"\['occurrences'\] can't both grow and fall",
        ),
    ],
)
def test_only_columns_beside_the_key_grow_or_fall(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidView, match=f"word_counts: {complaint}"):
        replace(WORD_COUNTS, **changes)


def test_totals_say_by_their_measures_which_columns_grow_and_fall() -> None:
    assert PAGE_STATS.grows == ("views", "unique_users", "errors", "last_seen")
    assert PAGE_STATS.falls == ("first_seen",)
    longer = {"most": Max("duration_ms"), "least": Min("duration_ms"), "sum": Sum("duration_ms")}
    longest = replace(PAGE_STATS, measures=longer)
    assert (longest.grows, longest.falls) == (("most",), ("least",))


@pytest.mark.parametrize("measure", [Mean, Sum, Min, Max])
def test_fractions_are_for_sql(measure: Any) -> None:
    refusal = (
        "hot: measured is made of whole numbers, and temperature of device_readings is of type"
    )
    with pytest.raises(InvalidView, match=f"{refusal} double; write the view in SQL"):
        WindowView(
            name="hot",
            stream=DEVICE_READINGS,
            dimensions=("device_id",),
            window=Tumbling(timedelta(minutes=1)),
            measures={"measured": measure("temperature")},
            description="What would end the job at the first fraction.",
        )


@pytest.mark.parametrize("avro_type", ["bytes", {"type": "array", "items": "string"}])
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dimensions": ("referrer",)}, "no text to tell them apart by"),
        ({"measures": {"n": CountDistinct("referrer")}}, "no text to tell them apart by"),
        ({"measures": {"n": CountDistinctApprox("referrer")}}, "no text to tell them apart by"),
        ({"measures": {"n": Sum("referrer")}}, "n is made of whole numbers"),
        ({"measures": {"n": Max("referrer")}}, "n is made of whole numbers"),
    ],
)
def test_what_has_no_text_and_is_no_number_is_for_sql(
    monkeypatch: pytest.MonkeyPatch, avro_type: Any, changes: dict[str, Any], complaint: str
) -> None:
    fields = [
        {**one, "type": ["null", avro_type]} if one["name"] == "referrer" else one
        for one in PAGE_VIEWS.schema["fields"]
    ]
    schema = {**PAGE_VIEWS.schema, "fields": fields}
    monkeypatch.setattr(Stream, "schema", property(lambda _: schema))
    with pytest.raises(InvalidView, match=f"site_traffic_per_minute: .*{complaint}.*in SQL"):
        replace(SITE_TRAFFIC_PER_MINUTE, **changes)


def test_a_number_groups_events_and_is_counted_as_its_text() -> None:
    measures = {"sizes": CountDistinct("bytes_sent"), "times": CountDistinctApprox("event_time")}
    view = replace(SITE_TRAFFIC_PER_MINUTE, dimensions=("status",), measures=measures)
    assert view.key == ("window_start", "status")


def test_only_the_accounting_tells_of_what_was_missed() -> None:
    for source in (one for job in JOBS.values() for one in plan(job, 1).inputs):
        windowed = [
            v for store in source.stores if isinstance(store, PaneStore) for v in store.views
        ]
        assert [v.name for v in windowed if v.accounts] == [source.accounting.name]


def test_totals_are_of_a_key_and_rows_of_all_time() -> None:
    assert PAGE_STATS.key == ("page_id",)
    assert PAGE_STATS.time_columns is None
    assert [column.name for column in PAGE_STATS.columns][:2] == ["page_id", "views"]
    with pytest.raises(InvalidView, match="page_stats: name dimensions"):
        replace(PAGE_STATS, dimensions=())
    with pytest.raises(InvalidView, match=r"page_stats: entry is no total; there are: Count, .*"):
        replace(PAGE_STATS, measures={"entry": First("page_id")})
    with pytest.raises(InvalidView, match=r"stream page_views has no field \['visitor'\]"):
        replace(PAGE_STATS, measures={"visitors": CountDistinct("visitor")})


def test_a_job_reads_a_topic_once() -> None:
    with pytest.raises(InvalidView, match="job twice reads a topic twice"):
        Job("twice", (PAGE_VIEWS, PAGE_REQUESTS), ())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Has-Dash; x", "is no name of a view: use small letters"),
        ("a" * 151, "150 letters are the most"),
        *((one, "a table of the project's own") for one in (DEAD_LETTERS.name, LATE_EVENTS.name)),
        *((one, "a table of the project's own") for one in (POINTERS, REPAIRED_EVENTS)),
        (accounting_view(ORDERS).name, "a table of the project's own"),
        (DEAD_LETTERS.table, 'tables end in "_loaded"'),
        (PAGE_STATS.table(1), 'tables end in "_v1"'),
        (f"{PAGE_STATS.table(2)}{LOCAL}", 'tables end in "_local"'),
    ],
)
def test_a_view_is_not_called_like_something_else(name: str, said: str) -> None:
    with pytest.raises(InvalidView, match=said):
        Job("mine", (PAGE_VIEWS,), (replace(PAGE_STATS, name=name),))


def test_a_name_is_that_of_one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidView, match="job mine has more than one view page_stats"):
        Job("mine", (PAGE_VIEWS,), (PAGE_STATS, PAGE_STATS))
    double = Job("words", (PAGE_VIEWS,), (PAGE_STATS,))
    monkeypatch.setattr("jobs.words.JOB", double)
    with pytest.raises(InvalidView, match="the jobs have more than one view page_stats"):
        runpy.run_path(str(PROJECT_ROOT / "jobs" / "catalogue.py"))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownView, match='did you mean "page_views_sliding"'):
        view_named("page_view_slidin")
    with pytest.raises(UnknownJob, match='did you mean "page_views"'):
        job_named("pageviews")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dimensions": ()}, "name dimensions"),
        ({"dimensions": ("visitor",)}, "page_views has no field \\['visitor'\\]"),
        ({"gap": timedelta(0)}, "keeps no events together"),
        ({"measures": {"time": First("duration_ms")}}, "time takes text that is never null"),
        ({"measures": {"time": Sum("seconds")}}, "page_views has no field \\['seconds'\\]"),
    ],
)
def test_sessions_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidView, match=f"page_view_sessions: .*{complaint}"):
        replace(PAGE_VIEW_SESSIONS, **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dimensions": ()}, "name dimensions"),
        ({"dimensions": ("page",)}, "page_views has no field \\['page'\\]"),
        ({"window": Tumbling(timedelta(seconds=90))}, "is no multiple of the pane"),
        ({"top": 0}, "the top 0 are none"),
    ],
)
def test_ranks_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidView, match=f"top_pages: .*{complaint}"):
        replace(TOP_PAGES_PER_HOUR, **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lookback": timedelta(seconds=59)}, "no window begins within 0:00:59 before"),
        ({"spike": 0}, "spike 0 must be more than zero"),
        ({"spike": 11}, "and critical 10 no less"),
    ],
)
def test_anomalies_that_make_no_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidView, match=f"traffic_anomalies: .*{complaint}"):
        replace(TRAFFIC_ANOMALIES, **changes)


@pytest.mark.parametrize(
    ("view", "field"),
    [
        (TOP_PAGES_PER_HOUR, "time"),
        (TRAFFIC_ANOMALIES, "count"),
        (PAGE_STATS, "events"),
        (PAGE_VIEW_SESSIONS, "session_end"),
        (SITE_TRAFFIC_PER_MINUTE, "pane"),
        (SITE_TRAFFIC_PER_MINUTE, "window"),
    ],
)
def test_a_field_that_a_store_calls_something_else_is_refused(
    view: Any, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = PAGE_VIEWS.schema
    named = {**schema, "fields": [*schema["fields"], {"name": field, "type": "string"}]}
    monkeypatch.setattr(Stream, "schema", property(lambda stream: named))
    grouped = replace(view, dimensions=(field,))
    (source,) = plan(Job("page_views", (PAGE_VIEWS,), (grouped,)), 1).inputs
    with pytest.raises(InvalidView, match=rf"columns of its own called \['{field}'\]"):
        _ = source.stores
