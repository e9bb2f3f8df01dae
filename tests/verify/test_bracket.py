"""Rows that move, held between two looks: never a false alarm, and what is outside is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import nan
from typing import Any

import pytest

from jobs.page_views import PAGE_STATS
from replay.bracket import (
    Between,
    Bracketed,
    Course,
    Judgement,
    Rule,
    Seen,
    judge_all,
    look_query,
    rule_of,
)
from replay.comparison import ComparedColumn, Comparison, StoredTable
from replay.differences import Kind

RULE = Rule(
    {
        "views": Course.GROWS,
        "users": Course.GROWS,
        "newest": Course.GROWS,
        "oldest": Course.FALLS,
        "mean": Course.EITHER_WAY,
        "last": Course.EITHER_WAY,
    }
)
Event = tuple[str, int]  # user, value
Partition = Sequence[Event]


def seen(*values: Any, at: int = 1) -> Seen:
    return Seen(values, (0, at))


def figures(events: Sequence[Event], rule: Callable[[int], int] = lambda count: count) -> Any:
    """Return the row of `events` as a plain loop has it; None without any."""
    count, users, newest, oldest, total = 0, set(), -1, 1 << 60, 0
    for user, value in events:
        count += 1
        users.add(user)
        newest, oldest, total = max(newest, value), min(oldest, value), total + value
    if not count:
        return None
    return rule(count), len(users), newest, oldest, total / count, events[-1][0]


def looks(
    partitions: Sequence[Partition], reads: Sequence[Sequence[int]], rule: Callable[[int], int]
) -> list[Seen | None]:
    """Return the row of the old, the new and the old version, each so far in the partitions."""
    found: list[Seen | None] = []
    for which, read in enumerate(reads):
        events = [e for part, end in zip(partitions, read, strict=True) for e in list(part)[:end]]
        row = figures(events, rule) if which == 1 else figures(events)
        # The old version writes the row with each event.
        found.append(None if row is None else Seen(row, (0, len(events))))
    return found


def scene(seed: int) -> tuple[list[Partition], list[list[int]]]:
    """Return events by partition, and how far each look is: none behind the one before."""
    chance = random.Random(seed)
    partitions = [
        [(chance.choice("abcdef"), chance.randrange(100)) for _ in range(chance.randrange(40))]
        for _ in range(3)
    ]
    ends = [sorted(chance.randint(0, len(part)) for _ in range(3)) for part in partitions]
    return partitions, [list(read) for read in zip(*ends, strict=True)]


def test_the_same_rule_never_differs_wherever_the_versions_read() -> None:
    held = 0
    for seed in range(2_000):
        before, new, after = looks(*scene(seed), rule=lambda count: count)
        if before or new:
            judgement = RULE.judge(before, new, after)
            assert judgement is not None
            assert not judgement.is_difference, seed
            held += 1
    assert held > 1_900


@pytest.mark.parametrize("share", [0.5, 0.9, 1.1, 2])
def test_another_rule_differs_just_where_a_plain_loop_finds_it_outside(share: float) -> None:
    found = 0
    for seed in range(1_000):
        before, new, after = looks(*scene(seed), rule=lambda count: int(count * share))
        if new is None or after is None:
            continue
        judgement = RULE.judge(before, new, after)
        assert judgement is not None
        least, most = (before.values[0] if before else 0), after.values[0]
        outside = not least <= new.values[0] <= most
        assert judgement.differs == (("views",) if outside else ()), seed
        found += outside
    assert found


def test_a_row_that_stood_still_is_the_same_in_every_column() -> None:
    stood = seen(3, 2, 9, 1, 4.0, "a")
    assert RULE.judge(stood, seen(3, 2, 9, 1, 4.0, "a", at=7), stood) == Judgement()
    other = RULE.judge(stood, seen(3, 2, 8, 2, 4.5, "b", at=7), stood)
    assert other == Judgement(Kind.CHANGED, ("newest", "oldest", "mean", "last"))


def test_what_goes_either_way_is_not_held_in_a_row_that_moved() -> None:
    # Mean and last were the same at both looks, and may have been others in between.
    before, after = seen(3, 2, 9, 1, 4.0, "a", at=1), seen(5, 3, 9, 0, 4.0, "a", at=2)
    moved = RULE.judge(before, seen(4, 3, 9, 1, 4.5, "b"), after)
    assert moved == Judgement(Kind.CHANGED, (), ("mean", "last"))
    wrong = RULE.judge(before, seen(6, 1, 9, 2, 4.5, "b"), after)
    assert wrong == Judgement(Kind.CHANGED, ("views", "users", "oldest"), ("mean", "last"))


def test_a_row_that_was_written_anew_as_it_was_may_have_been_another_meanwhile() -> None:
    rule = Rule({"last": Course.EITHER_WAY})
    assert rule.judge(seen("a", at=1), seen("b"), seen("a", at=2)) is None
    stood = rule.judge(seen("a", at=1), seen("b"), seen("a", at=1))
    assert stood == Judgement(Kind.CHANGED, ("last",))


def test_a_row_that_comes_is_held_from_one_side() -> None:
    after = seen(5, 3, 9, 0, 4.0, "a")
    assert RULE.judge(None, seen(1, 1, 1, 1, 1.0, "z"), after) == Judgement(
        Kind.CHANGED, (), ("mean", "last")
    )
    too_many = RULE.judge(None, seen(6, 1, 1, 1, 1.0, "z"), after)
    assert too_many is not None
    assert too_many.differs == ("views",)


def test_a_row_that_one_version_lacks_differs_unless_the_plan_may_expect_it() -> None:
    row = seen(1, 1, 1, 1, 1.0, "a")
    assert RULE.judge(row, None, row) == Judgement(Kind.ONLY_OLD)
    assert RULE.judge(None, row, None) == Judgement(Kind.ONLY_NEW)
    lenient = Rule(RULE.courses, absences=False)
    assert lenient.judge(row, None, row) is None
    assert lenient.judge(None, row, None) is None


def test_null_comes_before_every_value_and_never_after_one() -> None:
    rule = Rule({"most": Course.GROWS, "least": Course.FALLS})
    empty, some, more = (seen(*pair, at=n) for n, pair in enumerate([(None, None), (2, 2), (3, 1)]))
    assert rule.judge(empty, some, more) == rule.judge(empty, empty, more) == Judgement()
    for wrong in (rule.judge(some, empty, more), rule.judge(empty, some, empty)):
        assert wrong == Judgement(Kind.CHANGED, ("most", "least"))


def test_what_is_no_number_equals_itself() -> None:
    rule = Rule({"mean": Course.EITHER_WAY})
    assert rule.judge(seen(nan), seen(nan), seen(nan)) == Judgement()


def test_a_row_of_which_no_column_was_held_was_not_compared() -> None:
    rule = Rule({"views": Course.PLANNED, "mean": Course.EITHER_WAY})
    assert rule.judge(seen(1, 1.0, at=1), seen(9, 2.0), seen(2, 3.0, at=2)) is None
    # A view that has a key alone tells by it.
    assert Rule({}).judge(seen(at=1), seen(), seen(at=2)) == Judgement()


def test_all_rows_are_counted_and_how_close_they_were_held() -> None:
    rule = Rule({"views": Course.GROWS, "mean": Course.EITHER_WAY})
    before = {("a",): seen(10, 1.0, at=1), ("b",): seen(20, 1.0, at=2), ("gone",): seen(1, 1.0)}
    new = {("a",): seen(11, 2.0), ("b",): seen(20, 1.0), ("c",): seen(1, 1.0)}
    after = {("a",): seen(12, 3.0, at=9), ("b",): seen(20, 1.0, at=2), ("c",): seen(2, 1.0)}
    found, outside = judge_all(rule, before, new, after)
    assert found == Bracketed(
        rows=4, loose={"mean": 2}, sums={"views": Between(least=30, new=31, most=32)}
    )
    assert [(one.key, one.judgement.kind) for one in outside] == [(("gone",), Kind.ONLY_OLD)]


def test_of_too_many_moving_keys_only_those_that_count_are_gathered() -> None:
    old, new = (StoredTable(name, {"page": "String"}, ("page",)) for name in ("t_v1", "t_v2"))
    both = Comparison("t", old, new, (), (), emitted=({0: 5}, {0: 7}))
    chosen = "cityHash64(tuple(`page`, 0)) % 3 = 0 AND "
    assert look_query(both, old, 3) == (
        f"SELECT `page`, `_partition`, `_revision` FROM `t_v1` FINAL WHERE {chosen}(`page`) "
        f"GLOBAL IN (SELECT `page` FROM `t_v1` FINAL WHERE {chosen}"
        "NOT ((`_partition` = 0 AND `_revision` < 5)) UNION ALL "
        f"SELECT `page` FROM `t_v2` FINAL WHERE {chosen}"
        "NOT ((`_partition` = 0 AND `_revision` < 7)))"
    )
    assert look_query(both, old, 1) == look_query(both, old, 3).replace(chosen, "")


def test_totals_are_held_by_what_their_measures_do_with_more_events() -> None:
    old, new = (StoredTable(PAGE_STATS.table(version), {}, PAGE_STATS.key) for version in (1, 2))
    names = [column.name for column in PAGE_STATS.columns if column.name not in PAGE_STATS.key]
    columns = tuple(ComparedColumn(name) for name in names)
    assert rule_of(PAGE_STATS, Comparison(PAGE_STATS.name, old, new, columns, ())) == Rule(
        {
            "views": Course.GROWS,
            "unique_users": Course.GROWS,
            "avg_duration_ms": Course.EITHER_WAY,
            "errors": Course.GROWS,
            "first_seen": Course.FALLS,
            "last_seen": Course.GROWS,
        }
    )
