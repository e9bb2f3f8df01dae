"""Two versions compared in ClickHouse: exact rows, exact classes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from jobs.page_views import TOP_PAGES_PER_HOUR, TRAFFIC_ANOMALIES
from jobs.views import ArrivalView, QueryView, SessionView, Sliding, TotalsView
from replay.bracket import Between, Bracketed
from replay.comparison import CannotVerify
from replay.differences import Cut, Kind, Verdict
from replay.report import ColumnSum, ViewReport
from replay.verify import verify
from schemas.columns import Column, ColumnType
from schemas.framing import frame
from schemas.streams import ORDERS, PAGE_VIEWS
from tests.verify.tables import MINUTE, NOON, PAGES, SITE, Versions, counts, row, told
from udfs.measures import Count, Earliest, Sum

ROWS = [row("/a", 0, 3, 1), row("/b", 0, 2), row("/a", 1, 5, 2, None)]
NO_ERRORS = "new.views = old.views - old.errors"
FIXED = [row("/a", 0, 2, 1), row("/b", 0, 2), row("/a", 1, 3, 2, None)]


def test_equal_tables_have_no_difference(versions: Versions) -> None:
    versions.both(ROWS, ROWS)
    report = versions.verify()
    (view,) = report.views
    assert (report.unexplained, report.differences, view.drilled_rows) == (0, 0, 0)
    assert (view.old_rows, view.new_rows, view.differing_buckets) == (3, 3, 0)
    assert view.sums == (
        ColumnSum("views", 10, 10),
        ColumnSum("errors", 3, 3),
        ColumnSum("avg_ms", 10.0, 10.0),
    )


def test_two_empty_tables_have_no_difference(versions: Versions) -> None:
    versions.both([], [])
    assert versions.verify().sentence == "no difference in 0 rows, v2 against v1."


def test_a_table_against_an_empty_one_differs_in_every_row(versions: Versions) -> None:
    versions.both(ROWS, [])
    view = versions.compare()
    assert (view.kinds, view.unexplained) == ({Kind.ONLY_OLD: 3}, 3)


def test_the_newest_revision_of_a_key_counts(versions: Versions) -> None:
    versions.fill(PAGES, 1, [row("/a", 0, 1)], revision=1)
    versions.fill(PAGES, 1, [row("/a", 0, 3)], revision=2)
    versions.fill(PAGES, 2, [row("/a", 0, 3)], revision=9)
    assert versions.verify().differences == 0


def test_a_declared_column_is_expected(versions: Versions) -> None:
    versions.both(ROWS, FIXED)
    view = versions.compare(columns=["views"])
    assert told(view) == [
        ("/a", 0, "expected", ("views",)),
        ("/a", 1, "expected", ("views",)),
    ]
    assert versions.compare(columns=["pages.views"]).unexplained == 0


def test_a_condition_separates_what_the_fix_changes_from_what_it_must_not(
    versions: Versions,
) -> None:
    versions.both(ROWS, [*FIXED[:1], row("/b", 0, 7), FIXED[2]])
    view = versions.compare(conditions=[NO_ERRORS])
    assert told(view) == [
        ("/a", 0, "expected", ("views",)),
        ("/b", 0, "unexplained", ("views",)),
        ("/a", 1, "expected", ("views",)),
    ]
    assert view.columns == {"views": {Verdict.EXPECTED: 2, Verdict.UNEXPLAINED: 1}}
    sample = view.samples_of(Verdict.UNEXPLAINED)[0]
    rest = {"window_end": NOON + MINUTE, "errors": 0, "avg_ms": 5.0}
    assert (sample.row.old, sample.row.new) == ({"views": 2, **rest}, {"views": 7, **rest})
    assert sample.row.window == (NOON, NOON + MINUTE)


def test_a_missing_and_a_further_key_are_unexplained(versions: Versions) -> None:
    versions.both(ROWS, [*ROWS[:2], row("/c", 1, 1)])
    view = versions.compare(columns=["views", "errors", "avg_ms"])
    assert [(page, verdict) for page, _, verdict, _ in told(view)] == [
        ("/a", "unexplained"),
        ("/c", "unexplained"),
    ]
    assert (view.kinds, view.columns) == ({Kind.ONLY_OLD: 1, Kind.ONLY_NEW: 1}, {})
    assert [(one.row.old is None, one.row.new is None) for one in view.samples] == [
        (False, True),
        (True, False),
    ]


def test_a_condition_that_minds_nulls_may_expect_a_missing_row(versions: Versions) -> None:
    versions.both([row("/a", 0, 1, 1)], [])
    strict = versions.compare(conditions=[NO_ERRORS])
    lenient = versions.compare(conditions=["ifNull(new.views, 0) = old.views - old.errors"])
    assert (counts(strict), counts(lenient)) == ({"unexplained": 1}, {"expected": 1})


@pytest.mark.parametrize("reason", ["", "out_of_range"])
def test_an_event_skipped_by_one_version_explains_its_window(
    versions: Versions, reason: str
) -> None:
    versions.both(ROWS, [row("/a", 0, 4, 1), *ROWS[1:2], row("/a", 1, 6, 2, None)])
    versions.skip(1, 41, NOON + MINUTE / 2, reason=reason)
    view = versions.compare()
    assert told(view) == [
        ("/a", 0, "explained", ("views",)),
        ("/a", 1, "unexplained", ("views",)),
    ]
    what = f"dead ({reason})" if reason else "late"
    (explained,) = view.samples_of(Verdict.EXPLAINED)
    assert explained.cause == f"events.page_views[0] offset 41 is {what} in version 1 only"
    assert [(e.topic, e.partition, e.offset) for e in explained.events] == [
        ("events.page_views", 0, 41)
    ]


def test_an_event_is_no_proof_while_the_registry_is_away(versions: Versions) -> None:
    versions.both(ROWS, [row("/a", 0, 4, 1), *ROWS[1:]])
    versions.skip(1, 41, NOON, value=frame(7, b"an event"))
    view = versions.compare()
    assert counts(view) == {"explained": 1}
    assert view.unexplained == 1
    assert view.problems[0].startswith("the schema registry does not answer")


def test_an_event_skipped_by_both_versions_explains_nothing(versions: Versions) -> None:
    versions.both(ROWS, [row("/a", 0, 4, 1), *ROWS[1:]])
    versions.skip(1, 41, NOON, reason="missing")
    versions.skip(2, 41, NOON)
    assert counts(versions.compare()) == {"unexplained": 1}


def test_an_event_that_only_one_version_has_read_yet_explains_nothing(versions: Versions) -> None:
    versions.both(ROWS, [row("/a", 0, 4, 1), *ROWS[1:]])
    versions.skip(1, 41, NOON)
    assert counts(versions.compare(cut=Cut({"page_views": {0: 41}}))) == {"unexplained": 1}
    assert counts(versions.compare(cut=Cut({"page_views": {0: 42}}))) == {"explained": 1}


def closed(before: datetime) -> Cut:
    """Return the cut of versions that read on, in which windows are closed so far."""
    return Cut({}, {"page_views": before}, drained=False)


def test_windows_that_may_still_change_do_not_count(versions: Versions) -> None:
    versions.both(ROWS, [*ROWS[:2], row("/a", 1, 99)])
    (none,) = versions.verify(cut=closed(NOON)).views
    assert (none.old_rows, none.unexplained) == (0, 1)
    assert none.problems[0].startswith("none of its 3 rows was compared")
    settled = versions.verify(cut=closed(NOON + MINUTE))
    assert (settled.differences, settled.views[0].old_rows) == (0, 2)
    assert versions.verify(cut=closed(NOON + 2 * MINUTE)).differences == 1


def test_rows_about_to_expire_do_not_count(versions: Versions) -> None:
    kept = replace(PAGES, retention=timedelta(days=36500))
    versions.both(ROWS[:2], [], kept)
    expired = NOON + MINUTE + timedelta(days=36500) - timedelta(minutes=59)
    assert versions.verify(kept, now=NOON).differences == 2
    assert versions.verify(kept, now=expired).differences == 0


def test_on_a_cluster_key_and_lifetime_are_those_of_the_shards_own_tables(
    versions: Versions,
) -> None:
    kept = replace(PAGES, retention=timedelta(days=36500))
    versions.both(ROWS, FIXED, kept)
    for table in map(kept.table, (1, 2)):
        versions.clickhouse.command(f"RENAME TABLE {table} TO {table}_local")
        # It has its rows elsewhere and no key itself, as a Distributed one.
        versions.clickhouse.command(
            f"CREATE TABLE {table} ENGINE = Merge(currentDatabase(), '^{table}_local$')"
        )
    (view,) = versions.verify(kept, columns=["views"]).views
    assert told(view) == [
        ("/a", 0, "expected", ("views",)),
        ("/a", 1, "expected", ("views",)),
    ]
    expired = NOON + 2 * MINUTE + timedelta(days=36500)
    assert versions.verify(kept, now=expired).differences == 0


def test_floats_are_compared_exactly_and_nulls_and_nan_equal_themselves(
    versions: Versions,
) -> None:
    tail = [row("/b", 0, 1, 0, float("nan")), row("/c", 0, 1, 0, None)]
    versions.both(
        [row("/a", 0, 1, 0, 0.3), *tail, row("/d", 0, 1, 0, None), row("/e", 0, 1, 0, 0.0)],
        [row("/a", 0, 1, 0, 0.1 + 0.2), *tail, row("/d", 0, 1, 0, 0.0), row("/e", 0, 1, 0, None)],
    )
    assert [(page, columns) for page, _, _, columns in told(versions.compare())] == [
        ("/a", ("avg_ms",)),
        ("/d", ("avg_ms",)),
        ("/e", ("avg_ms",)),
    ]


def test_columns_of_one_version_are_schema_changes_and_differ_on_demand_only(
    versions: Versions,
) -> None:
    wider = replace(PAGES, measures={**PAGES.measures, "bots": Count()})
    versions.fill(PAGES, 1, ROWS)
    versions.fill(wider, 2, [{**one, "bots": 0} for one in ROWS])
    view = versions.compare()
    assert (view.schema_changes, view.differences) == (("bots is new: Int64",), 0)
    asked = versions.compare(count_schema_changes=True)
    assert asked.columns == {"bots": {Verdict.UNEXPLAINED: 3}}
    condition = "new.bots = old.views - old.views"
    assert versions.compare(count_schema_changes=True, conditions=[condition]).unexplained == 0


def test_a_column_of_another_type_is_compared_by_its_text(versions: Versions) -> None:
    floating = replace(PAGES, measures={**PAGES.measures, "views": Sum("status")})
    as_text = replace(PAGES, measures={**PAGES.measures, "views": Count()})
    versions.fill(as_text, 1, ROWS)
    versions.fill(floating, 2, ROWS)
    view = versions.compare()
    assert view.differences == 0
    assert all(change.startswith("views was Int64, is ") for change in view.schema_changes)


def test_another_key_blocks_without_comparing_rows(versions: Versions) -> None:
    versions.fill(PAGES, 1, ROWS)
    versions.fill(replace(SITE, name="pages"), 2, [])
    view = versions.compare()
    assert view.unexplained == 1
    assert view.problems[0].startswith("its key was (page_id, window_start) and is (window_start)")


def test_a_view_without_dimensions_and_one_with_overlapping_windows(versions: Versions) -> None:
    site = [{k: v for k, v in one.items() if k != "page_id"} for one in (ROWS[0], ROWS[2])]
    versions.both(site, [site[0], {**site[1], "views": 6}], SITE)
    sliding = replace(PAGES, name="sliding", window=Sliding(5 * MINUTE, MINUTE))
    wide = [{**one, "window_end": one["window_start"] + 5 * MINUTE} for one in ROWS]
    versions.both(wide, [{**wide[0], "views": wide[0]["views"] - 1}, *wide[1:]], sliding)
    versions.skip(2, 3, NOON + 4.5 * MINUTE)
    report = versions.verify(SITE, sliding)
    assert [counts(view) for view in report.views] == [{"unexplained": 1}, {"explained": 1}]
    assert (report.unexplained, report.count(Verdict.EXPLAINED)) == (1, 1)


def test_a_view_whose_key_has_no_window_is_compared_too(versions: Versions) -> None:
    for version, views in ((1, 3), (2, 4)):
        versions.clickhouse.command(
            f"CREATE TABLE alerts_v{version} (id String, score Int64, _revision UInt64) "
            "ENGINE = ReplacingMergeTree(_revision) ORDER BY id"
        )
        versions.clickhouse.command(
            f"INSERT INTO alerts_v{version} SELECT toString(number), "
            f"if(number = 77, {views}, 0), number FROM numbers(1000)"
        )
    (view,) = versions.verify(replace(PAGES, name="alerts")).views
    assert [one.row.key for one in view.samples] == [{"id": "77"}]
    assert (view.counts, view.timeline) == ({Verdict.UNEXPLAINED: 1}, ())


def test_a_view_whose_key_has_no_window_is_read_a_few_dozen_times_at_most(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay.view_comparison.CHUNK_ROWS", 2)
    for version in (1, 2):
        versions.clickhouse.command(
            f"CREATE TABLE alerts_v{version} (id String, score Int64, _revision UInt64) "
            "ENGINE = ReplacingMergeTree(_revision) ORDER BY id"
        )
        versions.clickhouse.command(
            f"INSERT INTO alerts_v{version} "
            f"SELECT toString(number), {version}, number FROM numbers(100)"
        )
    (view,) = versions.verify(replace(PAGES, name="alerts")).views
    assert view.differences == 100
    assert view.drilled_rows == 34 * 2 * 100


def test_rows_of_a_query_count_once_they_are_final_in_both_versions(versions: Versions) -> None:
    visits = QueryView(
        name="visits",
        sources=(PAGE_VIEWS,),
        key_columns=("user", "began"),
        query_columns=(
            Column("user", ColumnType.STRING),
            Column("began", ColumnType.TIMESTAMP),
            Column("ended", ColumnType.TIMESTAMP),
        ),
        sql="SELECT user_id, event_time, event_time FROM page_views",
        time_columns=("began", "ended"),
        settled_after=10 * MINUTE,
        description="Visits.",
    )
    rows = [{"user": "a", "began": NOON, "ended": NOON + n * MINUTE} for n in (0, 1)]
    versions.fill(visits, 1, [{**rows[0], "user": "b"}, rows[0]])
    versions.fill(visits, 2, [{**rows[1], "user": "b"}])
    # The row must have ended ten minutes and a pane of one minute before the cut.
    for passed, found in ((10, 0), (11, 2), (12, 2)):
        (view,) = versions.verify(visits, cut=Cut({}, {"page_views": NOON + passed * MINUTE})).views
        assert (passed, view.differences) == (passed, found)
    assert view.kinds == {Kind.ONLY_OLD: 1, Kind.CHANGED: 1}
    assert view.until == NOON + MINUTE
    # One of its streams is idle, and its operators have gone on without it; or they lag behind; or
    # what they tell is no event's time, as none came by then.
    joined = replace(visits, sources=(PAGE_VIEWS, ORDERS))
    closed_before = {"page_views": NOON, "orders": NOON + 30 * MINUTE}
    for passed, found in ((10, 2), (9, 0), (-60, 0), (29, 2), (30, 0)):
        at = {"visits": NOON + passed * MINUTE}
        (view,) = versions.verify(
            joined, cut=Cut({}, closed_before, passed=at, drained=False)
        ).views
        assert (passed, view.differences) == (passed, found)


def test_sessions_count_once_no_event_can_belong_to_them_in_both_versions(
    versions: Versions,
) -> None:
    visits = SessionView(
        name="sessions",
        stream=PAGE_VIEWS,
        dimensions=("user_id",),
        gap=30 * MINUTE,
        measures={"pages": Count()},
        description="Sessions.",
    )

    def session(user: str, minutes: int, pages: int) -> dict[str, object]:
        end = NOON + minutes * MINUTE
        return {"user_id": user, "session_start": NOON, "session_end": end, "pages": pages}

    versions.fill(visits, 1, [session("a", 0, 1), session("b", 5, 2)])
    versions.fill(visits, 2, [session("a", 0, 1), session("b", 5, 3)])
    # A session must have ended the gap and a pane of one minute before the cut.
    for closed, rows, differences in ((30, 0, 0), (31, 1, 0), (35, 1, 0), (36, 2, 1)):
        cut = Cut({}, {"page_views": NOON + closed * MINUTE})
        (view,) = versions.verify(visits, cut=cut).views
        assert (closed, view.old_rows, view.differences) == (closed, rows, differences)
    assert view.until == NOON + 5 * MINUTE


def test_a_late_event_explains_the_rows_of_its_key_that_no_window_has(versions: Versions) -> None:
    unpaid = QueryView(
        name="unpaid",
        sources=(PAGE_VIEWS,),
        key_columns=("user_id",),
        query_columns=(
            Column("user_id", ColumnType.STRING),
            Column("ordered_at", ColumnType.TIMESTAMP),
        ),
        sql="SELECT user_id, event_time FROM page_views",
        time_columns=("ordered_at", "ordered_at"),
        settled_after=5 * MINUTE,
        description="What was not paid within five minutes.",
    )
    minutes = {"soon": 0, "later": 8}
    versions.fill(
        unpaid, 1, [{"user_id": u, "ordered_at": NOON + m * MINUTE} for u, m in minutes.items()]
    )
    versions.fill(unpaid, 2, [])
    # What it paid was late in version 1 alone, so there it was never paid.
    versions.skip(1, 41, NOON + 2 * MINUTE)
    cut = Cut(closed_before={"page_views": NOON + 60 * MINUTE})
    (view,) = versions.verify(unpaid, cut=cut).views
    assert {one.row.key["user_id"]: one.verdict for one in view.samples} == {
        "soon": Verdict.EXPLAINED,
        "later": Verdict.UNEXPLAINED,
    }


def test_a_late_event_explains_what_was_usual_for_hours_after_it(versions: Versions) -> None:
    def anomaly(page: str, hours: int, baseline: float) -> dict[str, object]:
        start = NOON + hours * 60 * MINUTE
        window = {"window_start": start, "window_end": start + MINUTE}
        judged = {"views": 90, "baseline": baseline, "severity": "spike"}
        return {"page_id": page, **window, **judged}

    for version, baseline in ((1, 10.0), (2, 10.5)):
        versions.fill(
            TRAFFIC_ANOMALIES, version, [anomaly("/", hours, baseline) for hours in (-1, 5, 7)]
        )
    versions.skip(1, 41, NOON)
    cut = Cut(closed_before={"page_views": NOON + 600 * MINUTE})
    (view,) = versions.verify(TRAFFIC_ANOMALIES, cut=cut).views
    assert {one.row.key["window_start"]: one.verdict for one in view.samples} == {
        NOON - 60 * MINUTE: Verdict.UNEXPLAINED,
        NOON + 300 * MINUTE: Verdict.EXPLAINED,
        NOON + 420 * MINUTE: Verdict.UNEXPLAINED,
    }


def test_ranks_count_once_their_window_is_over_in_both_versions(versions: Versions) -> None:
    def ranked(hour: int, views: int) -> dict[str, object]:
        start = NOON + hour * 60 * MINUTE
        window = {"window_start": start, "window_end": start + 60 * MINUTE}
        return {**window, "rank": 1, "page_id": "/", "views": views}

    versions.fill(TOP_PAGES_PER_HOUR, 1, [ranked(0, 8), ranked(1, 9)])
    versions.fill(TOP_PAGES_PER_HOUR, 2, [ranked(0, 8)])
    # Both have read the same, but what is written when it is final may be in one alone.
    for closed, rows, differences in ((60, 0, 0), (61, 1, 0), (120, 1, 0), (121, 2, 1)):
        cut = Cut({}, {"page_views": NOON + closed * MINUTE}, drained=True)
        (view,) = versions.verify(TOP_PAGES_PER_HOUR, cut=cut).views
        assert (closed, view.old_rows, view.differences) == (closed, rows, differences)


VISITORS = QueryView(
    name="visitors",
    sources=(PAGE_VIEWS,),
    key_columns=("user",),
    query_columns=(Column("user", ColumnType.STRING), Column("visits", ColumnType.LONG)),
    sql="SELECT user_id, COUNT(*) FROM page_views GROUP BY user_id",
    description="Visits of each user.",
)


def visitors(**visits: int) -> list[dict[str, object]]:
    return [{"user": user, "visits": count} for user, count in visits.items()]


def test_rows_without_a_time_count_where_neither_version_writes_them(versions: Versions) -> None:
    versions.fill(VISITORS, 1, visitors(a=1, b=1, c=1, d=1), revision=5)
    versions.fill(VISITORS, 2, visitors(a=1, b=2, c=2, d=1), revision=7)
    # Each version has counted one more visit since; the other has not seen it yet.
    versions.fill(VISITORS, 1, visitors(c=3), revision=9)
    versions.fill(VISITORS, 2, visitors(d=2, e=1), revision=8)
    cut = Cut(drained=False, emitted={"visitors_v1": {0: 9, 1: 0}, "visitors_v2": {0: 8}})
    report = versions.verify(VISITORS, cut=cut)
    (view,) = report.views
    assert [(one.row.key, one.verdict) for one in view.samples] == [
        ({"user": "b"}, Verdict.UNEXPLAINED)
    ]
    assert (view.moving_rows, view.problems) == (2, ())
    everything = versions.verify(VISITORS, cut=Cut())
    assert everything.differences == 4


def test_totals_count_where_neither_version_writes_them_and_are_held_where_they_do(
    versions: Versions,
) -> None:
    totals = TotalsView(
        name="totals",
        stream=PAGE_VIEWS,
        dimensions=("page_id",),
        measures={"views": Count(), "first_seen": Earliest()},
        description="Totals.",
    )

    def fill(version: int, revision: int, **views: tuple[int, int]) -> None:
        rows = [
            {"page_id": page, "views": n, "first_seen": NOON + first * MINUTE}
            for page, (n, first) in views.items()
        ]
        versions.fill(totals, version, rows, revision=revision)

    fill(1, 1, still=(3, 0), wrong=(3, 0), moving=(5, 3), odd=(5, 3))
    fill(2, 1, still=(3, 0), wrong=(4, 0))
    fill(1, 9, moving=(5, 3), odd=(5, 3))
    steps = [(2, {"moving": (6, 2), "odd": (6, 4)}), (1, {"moving": (7, 1), "odd": (7, 1)})]

    def read_on() -> None:
        version, views = steps.pop(0)
        fill(version, 10 - len(steps), **views)

    cut = Cut({}, {"page_views": NOON}, False, {"totals_v1": {0: 5}, "totals_v2": {0: 5}})
    (view,) = versions.verify(totals, cut=cut, read_on=read_on).views
    assert [(one.row.key["page_id"], one.row.pattern.columns) for one in view.samples] == [
        ("wrong", ("views",)),
        ("odd", ("first_seen",)),
    ]
    assert (view.unexplained, view.moving_rows, view.bracketed.rows) == (2, 0, 2)


def test_a_view_of_which_every_row_moves_was_not_compared(versions: Versions) -> None:
    versions.fill(VISITORS, 1, visitors(a=1), revision=9)
    versions.fill(VISITORS, 2, visitors(a=1), revision=9)
    cut = Cut(emitted={"visitors_v1": {0: 9}, "visitors_v2": {0: 9}})
    (view,) = versions.verify(VISITORS, cut=cut).views
    assert (view.unexplained, view.moving_rows) == (1, 1)
    assert "none of their columns could be held" in view.problems[0]


MOVING = Cut({}, {"page_views": NOON}, False, {"visitors_v1": {0: 5}, "visitors_v2": {0: 5}})
GROWING = replace(
    VISITORS,
    query_columns=(*VISITORS.query_columns, Column("last", ColumnType.STRING)),
    grows=("visits",),
)


class Traffic:
    """Events that keep coming: each time both versions read on, the next rows are written."""

    def __init__(self, versions: Versions, *steps: tuple[int, dict[str, tuple[int, str]]]) -> None:
        self._versions, self._steps = versions, list(steps)
        self._revision = 10
        self.next()

    def next(self) -> None:
        self._revision += 1
        version, rows = self._steps.pop(0)
        self._versions.fill(
            GROWING,
            version,
            [{"user": user, "visits": n, "last": last} for user, (n, last) in rows.items()],
            revision=self._revision,
        )

    def verify(self, **options: object) -> ViewReport:
        report = self._versions.verify(GROWING, cut=MOVING, read_on=self.next, **options)
        assert not self._steps
        (view,) = report.views
        return view


def test_rows_that_are_written_all_the_time_are_held_between_two_looks(versions: Versions) -> None:
    versions.fill(GROWING, 2, [{"user": "a", "visits": 9, "last": "/"}], revision=9)
    traffic = Traffic(
        versions,
        (1, {"a": (10, "/x"), "b": (5, "/x"), "still": (7, "/x")}),
        (2, {"a": (11, "/y"), "b": (7, "/y"), "c": (1, "/y"), "still": (7, "/x")}),
        (1, {"a": (12, "/z"), "b": (6, "/z"), "c": (1, "/z")}),
    )
    view = traffic.verify()
    assert [(one.row.key, one.row.pattern.columns) for one in view.samples] == [
        ({"user": "b"}, ("visits",))
    ]
    row = view.samples[0].row
    assert row.later is not None
    assert row.new is not None
    assert row.old == {"visits": 5, "last": "/x"}
    assert (row.later["visits"], row.new["visits"]) == (6, 7)
    assert (view.unexplained, view.problems, view.moving_rows) == (1, (), 0)
    assert view.bracketed == Bracketed(
        rows=4, loose={"last": 3}, sums={"visits": Between(22, 25, 25)}
    )
    assert view.old_rows == 0
    assert view.rows == 4


def test_a_view_of_which_every_row_moves_is_compared_as_far_as_it_was_held(
    versions: Versions,
) -> None:
    versions.create(GROWING, 2)
    traffic = Traffic(
        versions, (1, {"a": (10, "/x")}), (2, {"a": (11, "/y")}), (1, {"a": (12, "/z")})
    )
    view = traffic.verify()
    assert (view.unexplained, view.problems, view.bracketed.rows) == (0, (), 1)


def test_moving_rows_of_which_nothing_could_be_held_still_block(versions: Versions) -> None:
    versions.create(GROWING, 2)
    rows = [(1, {"a": (10, "/x")}), (2, {"a": (9, "/y")}), (1, {"a": (12, "/z")})]
    view = Traffic(versions, *rows).verify(conditions=["new.visits = old.visits - 1"])
    assert (view.bracketed.rows, view.moving_rows, view.unexplained) == (0, 1, 1)
    assert "none of their columns could be held" in view.problems[0]


def test_a_declared_column_of_a_moving_row_is_expected(versions: Versions) -> None:
    versions.create(GROWING, 2)
    rows = [(1, {"a": (10, "/x")}), (2, {"a": (9, "/y")}), (1, {"a": (12, "/z")})]
    view = Traffic(versions, *rows).verify(columns=["visits"])
    assert (view.unexplained, counts(view), view.needed) == (0, {"expected": 1}, {"visits"})


def test_a_moving_row_that_one_version_lacks_is_a_difference(versions: Versions) -> None:
    versions.create(GROWING, 2)
    traffic = Traffic(
        versions, (1, {"a": (1, "/"), "b": (1, "/")}), (2, {"b": (1, "/"), "d": (1, "/")}), (1, {})
    )
    view = traffic.verify()
    assert view.kinds == {Kind.ONLY_OLD: 1, Kind.ONLY_NEW: 1}
    assert view.unexplained == 2


def test_of_too_many_moving_rows_the_same_keys_are_looked_at_each_time(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replay.bracket.MOST_ROWS", 100)
    versions.create(GROWING, 2)
    users = [f"u{number}" for number in range(300)]
    traffic = Traffic(
        versions,
        (1, dict.fromkeys(users, (1, "/"))),
        (2, dict.fromkeys(users, (2, "/"))),
        (1, dict.fromkeys(users, (3, "/"))),
    )
    view = traffic.verify()
    assert (view.differences, view.problems, view.bracketed.one_in) == (0, (), 3)
    assert 50 < view.bracketed.rows < 150
    assert view.bracketed.rows + view.moving_rows == 300


def test_answers_to_arrivals_count_by_when_they_were_written(versions: Versions) -> None:
    alerts = ArrivalView(
        name="alerts",
        sources=(PAGE_VIEWS,),
        key_columns=("user",),
        query_columns=(Column("user", ColumnType.STRING), Column("began", ColumnType.TIMESTAMP)),
        sql="SELECT user_id, event_time FROM page_views_arrivals",
        time_columns=("began", "began"),
        description="Alerts.",
    )
    # The late event of b came after the cut, whatever its time.
    versions.fill(alerts, 1, [{"user": "a", "began": NOON}], revision=1)
    versions.fill(alerts, 1, [{"user": "b", "began": NOON - MINUTE}], revision=2)
    versions.fill(alerts, 2, [{"user": "a", "began": NOON}], revision=1)
    closed_later = {"page_views": NOON + 5 * MINUTE}
    for end, found in ((2, 0), (3, 1)):
        cut = Cut({}, closed_later, emitted={"alerts_v1": {0: end}, "alerts_v2": {0: 2}})
        assert versions.verify(alerts, cut=cut).differences == found


def test_differences_are_counted_over_time(versions: Versions) -> None:
    versions.both(ROWS, FIXED)
    view = versions.compare(columns=["views"])
    assert [(moment.start, dict(moment.counts)) for moment in view.timeline] == [
        (NOON, {Verdict.EXPECTED: 1}),
        (NOON + MINUTE, {Verdict.EXPECTED: 1}),
    ]
    assert (view.span, view.bucket_seconds) == ((NOON, NOON + 2 * MINUTE), 60.0)


def test_centuries_apart_are_cut_into_buckets_too(versions: Versions) -> None:
    century = 100 * 365 * 24 * 60
    minutes = (-century, -century + 1, 0, century)
    versions.both(
        [row("/a", minute, 1) for minute in minutes],
        [row("/a", minute, 1 + (minute != 0)) for minute in minutes],
    )
    view = versions.compare()
    assert [minute for _, minute, _, _ in told(view)] == [-century, -century + 1, century]
    assert [sum(moment.counts.values()) for moment in view.timeline] == [2, 1]
    assert view.timeline[0].start < NOON - 99 * timedelta(days=365)


def test_an_expectation_that_nothing_needed_is_named(versions: Versions) -> None:
    versions.both(ROWS, FIXED)
    report = versions.verify(columns=["views", "errors"], conditions=["new.avg_ms = 0"])
    assert report.unused == ("errors", "new.avg_ms = 0")
    assert versions.verify(conditions=[NO_ERRORS]).unused == ()


def test_views_may_come_from_different_versions(versions: Versions) -> None:
    versions.both(ROWS, ROWS)
    site = [{k: v for k, v in one.items() if k != "page_id"} for one in ROWS[1:]]
    versions.fill(SITE, 2, site)
    versions.fill(PAGES, 4, ROWS)
    versions.fill(SITE, 4, [{**site[0], "views": 9}, site[1]])
    report = verify(
        versions.settings,
        views=(PAGES, SITE),
        old_version={"pages": 1, "site": 2},
        new_version=4,
        cut=Cut(),
        now=NOON,
    )
    assert report.sentence == "1 unexplained of 1 differences in 5 rows, v4 against v1+v2."


def test_what_is_expected_of_views_that_are_compared_apart_does_not_count(
    versions: Versions,
) -> None:
    versions.both(ROWS, FIXED)
    declared = ("views", "other.clicks")
    with pytest.raises(CannotVerify, match=r'has the expected column "other\.clicks"'):
        versions.verify(columns=declared)
    report = versions.verify(columns=declared, partial=True)
    assert (report.expected.columns, report.unused) == (("views",), ())
    assert counts(report.views[0]) == {"expected": 2}


@pytest.mark.parametrize("condition", ["new.views = (", "new.views = nosuch(1)", "new.page_id"])
def test_a_condition_that_clickhouse_refuses_is_named_though_nothing_differs(
    versions: Versions, condition: str
) -> None:
    versions.both(ROWS, ROWS)
    with pytest.raises(CannotVerify, match="ClickHouse refuses the condition"):
        versions.verify(conditions=[condition])


def test_a_condition_can_change_nothing(versions: Versions) -> None:
    versions.both(ROWS, FIXED)
    for condition in (
        "new.views)); DROP TABLE pages_v1 --",
        "new.views IN (SELECT file('/etc/x'))",
        "new.page_id IN (SELECT file('/etc/hostname'))",
    ):
        with pytest.raises(CannotVerify, match="ClickHouse refuses the condition"):
            versions.verify(conditions=[condition])
    assert versions.compare().old_rows == 3


def test_a_comment_does_not_swallow_what_follows_a_condition(versions: Versions) -> None:
    versions.both(ROWS, FIXED)
    assert versions.compare(conditions=[f"{NO_ERRORS} -- no errors"]).unexplained == 0


def test_a_version_that_is_not_loaded_is_named(versions: Versions) -> None:
    versions.fill(PAGES, 1, ROWS)
    with pytest.raises(CannotVerify, match="there is no table pages_v2"):
        versions.verify()


HOSTILE = [
    "it's",
    'a "b" `c`',
    "\\",
    "<script>alert(1)</script>",
    "a\tb\nc",
    "%(x)s {y:String}",
    "",
]


def test_hostile_keys_are_values(versions: Versions) -> None:
    versions.both([row(page, 0, 1) for page in HOSTILE], [row(page, 0, 2) for page in HOSTILE])
    versions.fill(PAGES, 1, [row("\U0001f600 same", 0, 1)])
    versions.fill(PAGES, 2, [row("\U0001f600 same", 0, 1)])
    view = versions.compare(conditions=["new.views = old.views + 1"])
    assert sorted(one.row.key["page_id"] for one in view.samples) == sorted(HOSTILE)
    assert counts(view) == {"expected": len(HOSTILE)}


def test_samples_are_bounded_and_counts_are_not(versions: Versions) -> None:
    for version, views in ((1, 1), (2, 2)):
        versions.create(PAGES, version)
        _insert_many(versions, version, 3_000, f"{views}")
    view = versions.compare()
    assert (counts(view), len(view.samples)) == ({"unexplained": 3_000}, 20)


def test_one_key_of_a_million_is_found_without_comparing_the_others(versions: Versions) -> None:
    for version in (1, 2):
        versions.create(PAGES, version)
        _insert_many(versions, version, 1_000_000, f"number % 7 + (number = 654321) * {version}")
    view = versions.compare()
    assert told(view) == [("/21", 6543, "unexplained", ("views",))]
    assert (view.old_rows, view.new_rows, view.differing_buckets) == (1_000_000, 1_000_000, 1)
    # Each table once, and the few rows of metadata that tell its span.
    assert 2_000_000 <= view.scanned_rows <= 2_000_010
    # ClickHouse reads at least a granule of 8,192 rows of each part.
    assert view.drilled_rows <= 40_000


def _insert_many(versions: Versions, version: int, rows: int, views: str) -> None:
    """Add `rows` rows of PAGES, a hundred a minute."""
    start = int(NOON.timestamp()) * 1000
    versions.clickhouse.command(
        f"INSERT INTO pages_v{version} SELECT concat('/', toString(number % 100)), "
        f"fromUnixTimestamp64Milli(toInt64({start} + intDiv(number, 100) * 60000), 'UTC') AS s, "
        f"s + toIntervalMinute(1), {views}, 0, number / 3, number, 0, s FROM numbers({rows})"
    )
