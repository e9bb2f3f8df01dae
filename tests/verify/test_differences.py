"""Classes of differences, decided without any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from replay.differences import (
    Cut,
    Difference,
    DifferingRow,
    Expectation,
    Kind,
    Pattern,
    SkippedEvent,
    SkippedEvents,
    UnusableExpectation,
    Verdict,
    ViewExpectation,
    classify,
    condition,
    cut_at,
    expectations,
    fitting,
    is_expected,
)

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATENESS = timedelta(minutes=5)
NO_ERRORS = "new.views = old.views - old.errors"


def row(
    *differing: str, kind: Kind = Kind.CHANGED, holds: tuple[bool, ...] = (), page: str = "/a"
) -> DifferingRow:
    return DifferingRow(
        {"page_id": page, "window_start": NOON},
        Pattern(kind, differing, holds),
        {"views": 3, "errors": 1},
        {"views": 2, "errors": 1},
        (NOON, NOON + MINUTE),
    )


def event(at: datetime = NOON, **attributes: Any) -> SkippedEvent:
    given = {"verdict": "late", "version": 1, "topic": "events.page_views", "partition": 2}
    return SkippedEvent(**{**given, "offset": 7, "timestamp": at, **attributes})


def classed(
    one: DifferingRow, expectation: ViewExpectation, *events: SkippedEvent
) -> tuple[Verdict, str]:
    found: Difference = classify(one, expectation, SkippedEvents(events), new_version=2)
    return found.verdict, found.cause


def test_a_declared_column_may_differ() -> None:
    plan = ViewExpectation(frozenset({"views"}))
    assert classed(row("views"), plan) == (Verdict.EXPECTED, "views")


def test_a_column_beside_the_declared_one_may_not() -> None:
    plan = ViewExpectation(frozenset({"views"}))
    assert classed(row("views", "errors"), plan) == (Verdict.UNEXPLAINED, "")


def test_a_condition_speaks_for_the_columns_it_names_as_new() -> None:
    plan = ViewExpectation(conditions=(condition(NO_ERRORS),))
    assert classed(row("views", holds=(True,)), plan) == (Verdict.EXPECTED, NO_ERRORS)
    assert classed(row("views", holds=(False,)), plan) == (Verdict.UNEXPLAINED, "")
    assert classed(row("errors", holds=(True,)), plan) == (Verdict.UNEXPLAINED, "")


def test_a_column_with_a_condition_must_satisfy_it_though_declared() -> None:
    plan = ViewExpectation(frozenset({"views"}), (condition(NO_ERRORS),))
    assert not is_expected(row("views", holds=(False,)).pattern, plan)


def test_all_conditions_on_a_column_must_hold() -> None:
    plan = ViewExpectation(conditions=(condition(NO_ERRORS), condition("new.views > 5")))
    assert is_expected(row("views", holds=(True, True)).pattern, plan)
    assert not is_expected(row("views", holds=(True, False)).pattern, plan)


@pytest.mark.parametrize("kind", [Kind.ONLY_OLD, Kind.ONLY_NEW])
def test_a_missing_row_takes_a_condition_over_both_versions(kind: Kind) -> None:
    both = ViewExpectation(conditions=(condition("ifNull(new.views, 0) = old.views - 1"),))
    one_side = ViewExpectation(frozenset({"views"}), (condition("new.views > 0"),))
    assert is_expected(Pattern(kind, ("views",), (True,)), both)
    assert not is_expected(Pattern(kind, ("views",), (False,)), both)
    assert not is_expected(Pattern(kind, ("views",), (True,)), one_side)


def test_an_event_in_the_window_explains_and_is_named() -> None:
    assert classed(row("views"), ViewExpectation(), event(NOON + MINUTE / 2)) == (
        Verdict.EXPLAINED,
        "events.page_views[2] offset 7 is late in version 1 only",
    )


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        (NOON - timedelta(milliseconds=1), Verdict.UNEXPLAINED),
        (NOON, Verdict.EXPLAINED),
        (NOON + MINUTE - timedelta(milliseconds=1), Verdict.EXPLAINED),
        (NOON + MINUTE, Verdict.UNEXPLAINED),
    ],
)
def test_an_event_explains_its_own_windows_only(at: datetime, verdict: Verdict) -> None:
    assert classed(row("views"), ViewExpectation(), event(at))[0] is verdict


COUNTS = {"views": None, "errors": None}
NOTHING = ViewExpectation()


def verdict_of(
    one: DifferingRow,
    *events: SkippedEvent,
    adds_up: Mapping[str, str | None] = COUNTS,
    expectation: ViewExpectation = NOTHING,
) -> Verdict:
    skipped = SkippedEvents(events)
    return classify(one, expectation, skipped, new_version=2, adds_up=adds_up).verdict


def changed(column: str, old: float, new: float) -> DifferingRow:
    return replace(row(column), old={column: old}, new={column: new})


@pytest.mark.parametrize(("events", "verdict"), [(1, Verdict.UNEXPLAINED), (2, Verdict.EXPLAINED)])
def test_an_event_explains_a_count_that_differs_by_one(events: int, verdict: Verdict) -> None:
    doubled = changed("views", 2, 4)
    skipped = [event(offset=n) for n in range(events)]
    assert verdict_of(doubled, *skipped) is verdict
    declared = ViewExpectation(frozenset({"views"}))
    both = replace(doubled, pattern=Pattern(Kind.CHANGED, ("views", "mean")))
    assert verdict_of(both, *skipped, expectation=declared) is Verdict.EXPLAINED


def test_the_version_that_skipped_an_event_has_less() -> None:
    in_old, in_new = event(version=1), event(version=2)
    assert verdict_of(changed("views", 2, 3), in_old) is Verdict.EXPLAINED
    assert verdict_of(changed("views", 3, 2), in_old) is Verdict.UNEXPLAINED
    assert verdict_of(changed("views", 3, 2), in_new) is Verdict.EXPLAINED
    only_old = replace(row(kind=Kind.ONLY_OLD), old={"views": 1}, new=None)
    only_new = replace(row(kind=Kind.ONLY_NEW), old=None, new={"views": 1})
    assert verdict_of(only_old, in_new) is Verdict.EXPLAINED
    assert verdict_of(only_old, in_old, adds_up={}) is Verdict.UNEXPLAINED
    assert verdict_of(only_new, in_old) is Verdict.EXPLAINED
    assert verdict_of(only_new, in_new, adds_up={}) is Verdict.UNEXPLAINED


def test_an_event_explains_as_much_of_a_sum_as_it_holds() -> None:
    sums = {"cents": "amount"}
    late = event(fields={"page_id": "/a", "amount": 40})
    assert verdict_of(changed("cents", 10, 50), late, adds_up=sums) is Verdict.EXPLAINED
    assert verdict_of(changed("cents", 10, 10_000_000), late, adds_up=sums) is Verdict.UNEXPLAINED
    assert verdict_of(changed("cents", 50, 10), late, adds_up=sums) is Verdict.UNEXPLAINED
    back = event(fields={"amount": -40}, version=2)
    assert verdict_of(changed("cents", 10, 50), back, adds_up=sums) is Verdict.EXPLAINED
    unread = event(fields=None)
    assert verdict_of(changed("cents", 10, 10_000_000), unread, adds_up=sums) is Verdict.EXPLAINED
    rounded = changed("cents", 0.1 + 0.2, 40.3)
    assert verdict_of(rounded, late, adds_up=sums) is Verdict.EXPLAINED


def test_an_event_of_another_key_explains_nothing() -> None:
    other = event(fields={"page_id": "/b"})
    assert classed(row("views"), ViewExpectation(), other)[0] is Verdict.UNEXPLAINED
    same = event(fields={"page_id": "/a"})
    assert classed(row("views"), ViewExpectation(), same)[0] is Verdict.EXPLAINED


def test_an_event_of_another_partition_explains_no_row_of_the_accounting() -> None:
    accounted = DifferingRow(
        {"source_partition": "1", "window_start": NOON},
        Pattern(Kind.CHANGED, ("events",)),
        {"events": 3},
        {"events": 2},
        (NOON, NOON + MINUTE),
    )
    assert classed(accounted, ViewExpectation(), event())[0] is Verdict.UNEXPLAINED
    assert classed(accounted, ViewExpectation(), event(partition=1))[0] is Verdict.EXPLAINED


def test_a_dead_event_is_named_with_its_reason_and_the_fourth_is_counted() -> None:
    events = [event(verdict="dead", version=2, offset=o, reason="missing") for o in (1, 2, 3, 4)]
    _, cause = classed(row("views"), ViewExpectation(), *events)
    assert cause == (
        "events.page_views[2] offset 1 is dead (missing) in version 2 only; "
        "events.page_views[2] offset 2 is dead (missing) in version 2 only; "
        "events.page_views[2] offset 3 is dead (missing) in version 2 only; and 1 more events"
    )


def test_a_row_without_window_has_no_events() -> None:
    bare = DifferingRow({"id": 1}, Pattern(Kind.CHANGED, ("views",)), {}, {})
    assert classed(bare, ViewExpectation(), event())[0] is Verdict.UNEXPLAINED


def test_the_columns_of_a_condition_are_found_outside_of_text_and_comments() -> None:
    found = condition(
        "new.`odd \\` name` = old.a AND new.\"b\" != 'new.c it''s \\' old.d' -- new.e\n"
        "/* old.f */ AND renew.g + new . h > 0"
    )
    assert found.new == {"odd ` name", "b", "h"}
    assert found.old == {"a"}


COLUMNS = {
    "pages": (frozenset({"page_id", "views", "errors"}), frozenset({"page_id", "views", "bots"})),
    "site": (frozenset({"views"}), frozenset({"views"})),
}


def test_expectations_go_to_the_views_that_have_their_columns() -> None:
    found = expectations(Expectation(("site.views", "bots"), (NO_ERRORS,)), COLUMNS)
    assert found == {
        "pages": ViewExpectation(frozenset({"bots"}), (condition(NO_ERRORS),)),
        "site": ViewExpectation(frozenset({"views"})),
    }


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        (Expectation(("veiws",)), 'expected column "veiws"; did you mean "views"'),
        (Expectation(("pages.bytes",)), 'expected column "pages.bytes"'),
        (Expectation(conditions=("new.errors = 0",)), "has all columns of the condition"),
        (Expectation(conditions=("old.views = 1",)), "names no new.<column>"),
    ],
)
def test_an_expectation_that_fits_nothing_is_refused(declared: Expectation, complaint: str) -> None:
    with pytest.raises(UnusableExpectation, match=complaint):
        expectations(declared, COLUMNS)


def test_what_fits_none_of_these_views_may_be_of_others() -> None:
    declared = Expectation(("site.views", "bots"), (NO_ERRORS, "new.views = 2 * old.views"))
    assert fitting(declared, {"pages": COLUMNS["pages"]}) == Expectation(
        ("bots",), declared.conditions
    )
    assert fitting(declared, {"site": COLUMNS["site"]}) == Expectation(
        ("site.views",), declared.conditions[1:]
    )
    assert fitting(declared, COLUMNS) == declared


def test_the_cut_ends_a_lateness_before_the_least_watermark_of_any_partition() -> None:
    marks = {0: NOON, 1: NOON - MINUTE}
    assert cut({0: 9, 1: 4, 2: 0}, {0: 7, 1: 5}, marks) == Cut(
        {"a": {0: 7, 1: 4, 2: 0}}, {"a": NOON - MINUTE - LATENESS}, drained=False
    )


def test_all_rows_count_when_both_have_read_the_same_and_nothing_is_under_way() -> None:
    read = {0: 9, 1: 4}
    marks, closed = {0: NOON, 1: NOON}, {"a": NOON - LATENESS}
    assert cut(read, read, marks, drained=True) == Cut({"a": read}, closed)
    assert cut(read, read, marks) == Cut({"a": read}, closed, drained=False)


def test_nothing_is_settled_while_one_version_has_not_begun_a_partition() -> None:
    assert cut({0: 9, 1: 4}, {0: 9}, {0: NOON}) is None
    assert cut({}, {}, {}) is None


def test_a_partition_that_fell_silent_long_ago_keeps_nothing_open() -> None:
    read = {"a": {0: 9, 1: 4}}
    silent = {"a": {0: NOON, 1: NOON - timedelta(days=30)}}
    idle, lateness = {"a": timedelta(minutes=5)}, {"a": LATENESS}

    def closed(ends: dict[int, int], marks: dict[str, dict[int, datetime]] = silent) -> datetime:
        found = cut_at(read, read, marks, lateness, ends={"a": ends}, idle_timeout=idle)
        assert found is not None
        return found.closed_before["a"]

    assert closed({0: 9, 1: 4}) == NOON - LATENESS
    assert closed({0: 9, 1: 5}) == NOON - timedelta(days=30) - LATENESS
    lately = {"a": {0: NOON, 1: NOON - MINUTE}}
    assert closed({0: 9, 1: 4}, lately) == NOON - MINUTE - LATENESS


def cut(
    old: dict[int, int], new: dict[int, int], marks: dict[int, datetime], *, drained: bool = False
) -> Cut | None:
    """Return the cut of a job that reads stream `a` alone."""
    return cut_at({"a": old}, {"a": new}, {"a": marks}, {"a": LATENESS}, drained=drained)


def test_each_stream_is_closed_by_its_own_watermark_and_lateness() -> None:
    lateness = {"a": LATENESS, "b": MINUTE, "empty": MINUTE}
    read = {"a": {0: 9}, "b": {0: 3}, "empty": {}}
    found = cut_at(read, {**read, "b": {0: 2}}, {"a": {0: NOON}, "b": {0: NOON}}, lateness)
    assert found == Cut(
        {**read, "b": {0: 2}}, {"a": NOON - LATENESS, "b": NOON - MINUTE}, drained=False
    )
    assert found.closed_in(["a", "b", "empty"]) == NOON - LATENESS
    assert found.closed_in(["b"]) == NOON - MINUTE
    assert found.closed_in(["empty"]) is None


def test_all_streams_must_be_read_alike_for_all_rows_to_count() -> None:
    lateness, marks = {"a": LATENESS, "b": LATENESS}, {"a": {0: NOON}, "b": {0: NOON}}
    old, new = {"a": {0: 9}, "b": {0: 3}}, {"a": {0: 9}, "b": {0: 4}}
    found = cut_at(old, new, marks, lateness, drained=True)
    assert found is not None
    assert not found.drained
    assert cut_at(old, new, {"a": {0: NOON}}, lateness) is None
