"""What a replay is planned as, and why it may be refused. No stack."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.catalogue import job_named
from replay.build import live_version
from replay.differences import Expectation
from replay.plan import DEFAULT_RATE, Facts, Refused, goes_on, is_done, plan_replay, refuse_lost
from replay.records import (
    ReplayRecord,
    ReplayState,
    VersionState,
    events_before,
    plan_from_json,
)
from replay.replaced import replaced_plan
from sinks.tables import TableColumn

COLUMNS = TableColumn("views", "Int64"), TableColumn("errors", "Nullable(Int64)")
FACTS = Facts(
    job="page_views",
    topics={"page_views": "events.page_views"},
    views=("per_minute", "page_views_accounting"),
    shown={"per_minute": 1, "page_views_accounting": 1},
    versions_used=frozenset({1}),
    columns={"per_minute": (COLUMNS, COLUMNS)},
    begin={"page_views": {0: 0, 1: 0}},
    end={"page_views": {0: 300, 1: 200}},
    schema_ids=(1, 4),
    unreadable=(),
    slots_needed=2,
    slots_free=2,
    table_bytes=1_000,
    bytes_free=10_000,
    measured_rate=None,
)
ERRORS = Expectation(columns=("errors",))
SEVERAL = replace(
    FACTS,
    job="orders",
    topics={"orders": "events.orders", "payments": "events.payments"},
    views=("per_minute", "orders_accounting", "payments_accounting"),
    shown=dict.fromkeys(("per_minute", "orders_accounting", "payments_accounting"), 1),
    begin={"orders": {0: 0}, "payments": {0: 0, 1: 0}},
    end={"orders": {0: 300}, "payments": {0: 40, 1: 100}},
)


def test_the_next_version_is_built_from_offset_zero_to_the_ends() -> None:
    plan = plan_replay(FACTS, ERRORS, from_earliest=False)
    assert plan.to_version == 2
    assert plan.from_versions == {"per_minute": 1, "page_views_accounting": 1}
    assert (plan.begin, plan.pinned, plan.events) == (FACTS.begin, FACTS.end, 500)
    assert plan.expected == ERRORS
    assert (plan.rate, plan.seconds) == (DEFAULT_RATE, 500 / DEFAULT_RATE)
    assert plan.rate_from == "the default, as none was measured yet"


def test_the_time_follows_from_the_rate_of_the_last_rebuild() -> None:
    plan = plan_replay(replace(FACTS, measured_rate=250.0), ERRORS, from_earliest=False)
    assert (plan.seconds, plan.rate_from) == (2.0, "the last rebuild")


def test_a_version_is_never_used_twice() -> None:
    facts = replace(FACTS, versions_used=frozenset({1, 2, 3}))
    assert plan_replay(facts, ERRORS, from_earliest=False).to_version == 4


def test_a_gap_is_named_and_may_be_accepted() -> None:
    facts = replace(FACTS, begin={"page_views": {0: 0, 1: 50}})
    with pytest.raises(Refused, match="partition 1 lacks offsets 0 to 49"):
        plan_replay(facts, ERRORS, from_earliest=False)
    plan = plan_replay(facts, ERRORS, from_earliest=True)
    assert (plan.from_earliest, plan.events) == (True, 450)


def test_a_gap_in_any_stream_names_that_stream() -> None:
    facts = replace(SEVERAL, begin={**SEVERAL.begin, "payments": {0: 0, 1: 7}})
    with pytest.raises(Refused) as refused:
        plan_replay(facts, ERRORS, from_earliest=False)
    (reason,) = refused.value.reasons
    assert reason.startswith("events.payments does not begin at offset zero: partition 1 lacks")
    plan = plan_replay(facts, ERRORS, from_earliest=True)
    assert (plan.from_earliest, plan.events) == (True, 300 + 40 + 93)


def test_events_of_all_streams_are_read() -> None:
    plan = plan_replay(SEVERAL, ERRORS, from_earliest=False)
    assert (plan.pinned, plan.events) == (SEVERAL.end, 440)
    read = {"orders": {0: 400}, "payments": {1: 60}}
    assert events_before(read, plan) == 300 + 60
    assert events_before({}, plan) == 0


def test_a_letter_that_was_mended_must_not_count_beside_its_copy() -> None:
    facts = replace(FACTS, doubled={"page_views": ((1, 9), (0, 7), (0, 3))})
    with pytest.raises(Refused) as refused:
        plan_replay(facts, ERRORS, from_earliest=False)
    (reason,) = refused.value.reasons
    assert reason.startswith("events.page_views: the rules of now take dead letters as they were")
    assert "(3, the first in partition 0 at offset 3)" in reason
    plan = plan_replay(facts, ERRORS, from_earliest=False, count_twice=True)
    assert plan.counted_twice == 3
    assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_a_letter_that_the_topic_has_dropped_is_counted_by_nobody() -> None:
    facts = replace(
        FACTS, begin={"page_views": {0: 8, 1: 0}}, doubled={"page_views": ((0, 7), (1, 9))}
    )
    plan = plan_replay(facts, ERRORS, from_earliest=True, count_twice=True)
    assert plan.counted_twice == 1
    archived = replace(facts, archive="s3://events", archived={0: 8})
    assert plan_replay(archived, ERRORS, from_earliest=False, count_twice=True).counted_twice == 2


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        ("several", "--from-archive can't help job orders, which reads several streams"),
        ("queries", "per_minute: --from-archive rebuilds no views in SQL"),
    ],
)
def test_an_archive_helps_windowed_views_of_one_stream(facts: str, complaint: str) -> None:
    asked = {
        "several": replace(SEVERAL, begin={**SEVERAL.begin, "payments": {0: 0, 1: 7}}),
        "queries": replace(FACTS, begin={"page_views": {0: 1, 1: 0}}, queries=("per_minute",)),
    }[facts]
    with pytest.raises(Refused, match=complaint):
        plan_replay(replace(asked, archive="s3://events"), ERRORS, from_earliest=False)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"slots_free": 1}, "Flink has 1 free slots and the rebuild needs 2"),
        ({"bytes_free": 1_999}, "make room"),
        ({"shown": {"per_minute": 1}}, "page_views_accounting: nothing is live"),
        (
            {"columns": {"per_minute": ((TableColumn("error", "Int64"),),) * 2}},
            'did you mean "error"',
        ),
        (
            {"columns": {"per_minute": (COLUMNS, (COLUMNS[0], TableColumn("errors", "String")))}},
            r"per_minute\.errors was Nullable\(Int64\) and is String, which no query can read",
        ),
        ({"unreadable": ("version 3 can't be read.",)}, "version 3 can't be read"),
    ],
)
def test_a_replay_that_can_not_end_well_does_not_begin(
    changed: dict[str, object], complaint: str
) -> None:
    with pytest.raises(Refused, match=complaint):
        plan_replay(replace(FACTS, **changed), ERRORS, from_earliest=False)  # type: ignore[arg-type]


def test_a_wider_number_and_a_column_that_is_new_are_built() -> None:
    wider = TableColumn("views", "Float64"), TableColumn("visitors", "String")
    facts = replace(FACTS, columns={"per_minute": (COLUMNS, wider)})
    assert plan_replay(facts, ERRORS, from_earliest=False).to_version == 2


def test_a_cluster_that_gets_slots_when_asked_has_enough_of_them() -> None:
    plan = plan_replay(replace(FACTS, slots_free=None), ERRORS, from_earliest=False)
    assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_every_reason_is_told_at_once() -> None:
    facts = replace(FACTS, slots_free=0, begin={"page_views": {0: 1, 1: 0}})
    with pytest.raises(Refused) as refused:
        plan_replay(facts, ERRORS, from_earliest=False)
    assert len(refused.value.reasons) == 2


def test_a_plan_is_the_same_after_the_journal() -> None:
    for facts in (FACTS, SEVERAL):
        plan = plan_replay(facts, ERRORS, from_earliest=False)
        assert plan_from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_a_plan_of_when_every_job_read_one_stream_is_read() -> None:
    plan = plan_replay(FACTS, ERRORS, from_earliest=False)
    document = {**plan.as_json(), "stream": "page_views"}
    document |= {name: document[name]["page_views"] for name in ("begin", "pinned")}
    assert plan_from_json(json.loads(json.dumps(document))) == plan


def test_events_that_are_dropped_after_the_plan_are_missed() -> None:
    topics = {"page_views": "events.page_views"}
    plan = plan_replay(FACTS, ERRORS, from_earliest=False)
    refuse_lost(plan, topics, FACTS.begin, {})
    dropped = {"page_views": {0: 0, 1: 50}}
    with pytest.raises(Refused, match=r"partition 1 of events\.page_views lacks offsets 0 to 49:"):
        refuse_lost(plan, topics, dropped, {})
    with pytest.raises(Refused, match="lacks offsets 49 to 49:"):
        refuse_lost(plan, topics, dropped, {"page_views": {1: 49}})
    # What the rebuild has read already may go.
    refuse_lost(plan, topics, dropped, {"page_views": {0: 0, 1: 50}})


def test_a_second_reader_that_has_not_begun_has_missed_nothing() -> None:
    topics = {"page_views": "events.page_views"}
    facts = replace(FACTS, begin={"page_views": {0: 0, 1: 50}})
    plan = plan_replay(facts, ERRORS, from_earliest=True)
    refuse_lost(plan, topics, facts.begin, {"page_views": {0: 0, 1: 0}})


def test_a_gap_that_was_accepted_may_not_grow() -> None:
    topics = {"page_views": "events.page_views"}
    facts = replace(FACTS, begin={"page_views": {0: 0, 1: 50}})
    plan = plan_replay(facts, ERRORS, from_earliest=True)
    refuse_lost(plan, topics, facts.begin, {})
    with pytest.raises(Refused, match=r"partition 1 of events\.page_views lacks offsets 50 to 59:"):
        refuse_lost(plan, topics, {"page_views": {0: 0, 1: 60}}, {})


def test_a_rebuild_from_an_archive_needs_the_topic_from_the_pinned_offsets_on() -> None:
    topics = {"page_views": "events.page_views"}
    facts = replace(
        FACTS, begin={"page_views": {0: 0, 1: 50}}, archive="s3://events", archived={1: 60}
    )
    plan = plan_replay(facts, ERRORS, from_earliest=False)
    refuse_lost(plan, topics, {"page_views": {0: 300, 1: 200}}, {})
    with pytest.raises(Refused, match="lacks offsets 200 to 200:"):
        refuse_lost(plan, topics, {"page_views": {0: 300, 1: 201}}, {})


@pytest.mark.parametrize(
    ("state", "views", "expected", "same"),
    [
        (ReplayState.BUILDING, ("per_minute",), ERRORS, True),
        (ReplayState.BUILT, ("per_minute",), Expectation(), True),
        (ReplayState.BUILDING, ("per_minute",), Expectation(columns=("views",)), False),
        (ReplayState.BUILDING, ("other",), ERRORS, False),
        (ReplayState.PROMOTED, ("per_minute",), ERRORS, False),
    ],
)
def test_only_the_same_wish_goes_on_with_an_open_replay(
    state: ReplayState, views: tuple[str, ...], expected: Expectation, same: bool
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plan = plan_replay(FACTS, ERRORS, from_earliest=False)
    record = ReplayRecord(1, "", "page_views", plan.views, 2, state, plan, now, now)
    assert goes_on(record, views, expected) is same


@pytest.mark.parametrize(
    ("state", "live", "views", "expected", "done"),
    [
        (ReplayState.PROMOTED, 2, ("per_minute",), ERRORS, True),
        (ReplayState.RETIRED, 2, ("per_minute",), Expectation(), True),
        (ReplayState.RETIRED, 3, ("per_minute",), ERRORS, False),
        (ReplayState.RETIRED, 2, ("per_minute", "other"), ERRORS, False),
        (ReplayState.RETIRED, 2, ("per_minute",), Expectation(columns=("views",)), False),
        (ReplayState.ROLLED_BACK, 1, ("per_minute",), ERRORS, False),
        (ReplayState.BUILT, 1, ("per_minute",), ERRORS, False),
    ],
)
def test_a_wish_is_done_while_people_see_what_was_built_for_it(
    state: ReplayState, live: int, views: tuple[str, ...], expected: Expectation, done: bool
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plan = plan_replay(FACTS, ERRORS, from_earliest=False)
    record = ReplayRecord(1, "", "page_views", plan.views, 2, state, plan, now, now)
    # A replay of other views may have another version of the accounting.
    states = {
        ("per_minute", live): VersionState.LIVE,
        ("page_views_accounting", 9): VersionState.LIVE,
    }
    assert is_done(record, views, expected, states) is done


def test_the_live_job_is_the_one_that_writes_most_of_the_views() -> None:
    record = recorded(
        "page_views",
        {"page_views_per_minute": 1, "page_views_sliding": 1, "site_traffic_per_minute": 2},
    )
    assert live_version(record) == 1


def test_the_live_job_is_not_the_one_that_accounts_for_most_streams() -> None:
    accounting = {"orders_accounting": 1, "payments_accounting": 1}
    record = recorded("orders", {"revenue_per_minute": 2, **accounting})
    record = replace(record, plan=replace(record.plan, pinned={"orders": {}, "payments": {}}))
    assert live_version(record) == 2
    only = replace(record.plan, from_versions=accounting)
    assert live_version(replace(record, plan=only)) == 1


def test_a_stream_that_is_new_to_the_job_has_no_accounting_to_be_replaced() -> None:
    facts = replace(
        SEVERAL,
        shown={"per_minute": 1, "orders_accounting": 1},
        new_streams=("payments",),
    )
    plan = plan_replay(facts, ERRORS, from_earliest=False)
    assert plan.views == ("per_minute", "orders_accounting")
    assert plan.from_versions == {"per_minute": 1, "orders_accounting": 1}
    assert (plan.pinned, plan.events) == (SEVERAL.end, 440)


def test_the_old_version_reads_no_stream_that_it_has_no_accounting_of() -> None:
    orders = job_named("orders").within("")
    record = recorded("orders", {"revenue_per_minute": 1, "orders_accounting": 1})
    before = replaced_plan(orders, record, 1, {"views.orders_accounting.v1"})
    assert [source.stream.name for source in before.inputs] == ["orders"]
    assert set(before.topics) == {"revenue_per_minute", "orders_accounting"}


def test_the_old_version_has_only_the_views_that_are_replaced_there() -> None:
    fraud = job_named("transactions").within("")
    record = recorded("transactions", {"transactions_accounting": 1, "fraud_alerts": 2})
    topics = {f"views.transactions_accounting.v{version}" for version in (1, 2)}
    old, added = (replaced_plan(fraud, record, version, topics) for version in (1, 2))
    # Who never looked at events as they arrive has committed nothing there.
    assert old.groups == (old.group,)
    assert added.groups == (added.group, added.arrivals_group)


def recorded(job: str, from_versions: dict[str, int]) -> ReplayRecord:
    """Return a replay of `job` that replaces these versions with the third."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    planned = plan_replay(FACTS, ERRORS, from_earliest=False)
    planned = replace(planned, from_versions=from_versions)
    views = tuple(from_versions)
    return ReplayRecord(1, "", job, views, 3, ReplayState.BUILDING, planned, now, now)
