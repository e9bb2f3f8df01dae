"""A partition with too many dead letters stops its job, however the batches fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from schemas.streams import DeadLetterLimit
from udfs.dead_letter_limit import DeadLetterGuard, TooManyDeadLetters

LIMIT = DeadLetterLimit(in_a_row=4, share=0.5, events=12)
GOOD = "."


def guard(
    before: Sequence[int] = (), events: Sequence[int] = (), **accepted: int
) -> DeadLetterGuard:
    """Return a guard of topic `t` that finds `before` in the dead-letter topic.

    At the offsets before a restart it finds `events`.
    """

    def dead_before(partition: int, offset: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([at for at in before if at < offset], dtype=np.int64)

    def events_in(partition: int, first: int, end: int) -> np.ndarray[tuple[int], Any]:
        return np.array([at for at in events if first <= at < end], dtype=np.int64)

    passed = {int(partition[1:]): offset for partition, offset in accepted.items()}
    return DeadLetterGuard("t", LIMIT, dead_before, events_in, passed)


def show(one: DeadLetterGuard, events: str, first: int = 0, partition: int = 0) -> None:
    """Show a batch of good and bad events at the offsets from `first` on."""
    offsets = np.arange(first, first + len(events), dtype=np.int64)
    reasons = np.array([None if event == GOOD else "empty" for event in events], dtype=object)
    one.judge(np.full(len(events), partition, dtype=np.int64), offsets, reasons)


def test_a_thousand_in_a_row_or_more_than_half_of_four_thousand_are_too_many() -> None:
    assert DeadLetterLimit().windows == ((1_000, 1_000), (2_001, 4_000))


@pytest.mark.parametrize(
    ("events", "passes"),
    [
        ("." * 100, True),
        ("xxx.", True),
        ("xxxx", False),
        ("xxx.xxx.", True),
        ("xxx.xxx.x", False),
        ("x.x.x.x.x.x." * 5, True),
        ("x.x.x.x.x.xx", False),
        ("xx.." * 30, True),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_limit_holds_wherever_batches_end(events: str, passes: bool, size: int) -> None:
    def show_all() -> None:
        one = guard()
        for at in range(0, len(events), size):
            show(one, events[at : at + size], at)

    if passes:
        show_all()
        return
    with pytest.raises(TooManyDeadLetters, match=r"of t, partition 0, are dead letters.*'empty'"):
        show_all()


def test_each_partition_is_judged_alone() -> None:
    one = guard()
    for partition in range(3):
        show(one, "xxx", partition=partition)
    with pytest.raises(TooManyDeadLetters, match="partition 1"):
        show(one, "x", 3, partition=1)


def test_what_a_restarted_job_refused_before_counts_on() -> None:
    show(guard(before=[7, 8]), "x.", 9)
    with pytest.raises(TooManyDeadLetters, match="up to offset 10 "):
        show(guard(before=[7, 8, 9]), "x.xx.", 10)
    show(guard(before=[7, 8, 9]), "..x", 10)


def test_a_rewind_asks_again() -> None:
    one = guard(before=[7, 8])
    show(one, "x.x", 9)
    show(one, "x.x", 9)


def test_accepted_dead_letters_are_no_reason_to_stop() -> None:
    one = guard(before=[1, 2, 3], p0=100)
    show(one, "x" * 96, 4)
    show(one, "xxx.", 100)
    with pytest.raises(TooManyDeadLetters):
        show(one, "xxxx", 104)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_bad_events_in_a_row_are_too_many_however_far_apart_they_are(size: int) -> None:
    # Where each event has a transaction of its own, its marker takes the offset after it.
    offsets, one = np.arange(0, 40, 2, dtype=np.int64), guard()

    def show_all(events: str) -> None:
        for at in range(0, len(events), size):
            part = events[at : at + size]
            reasons = np.array([None if event == GOOD else "empty" for event in part], object)
            one.judge(np.zeros(len(part), np.int64), offsets[at : at + size], reasons)

    show_all("xxx.xx.x" + GOOD * 2)
    with pytest.raises(TooManyDeadLetters, match="4 of 4 events up to offset 14 "):
        show_all(".xx.xxxx")


@pytest.mark.parametrize(
    ("before", "events", "bad", "passes"),
    [
        # One in each transaction.
        ([4, 6, 8], [4, 6, 8], "x", False),
        ([4, 6, 8], [4, 6, 8], ".", True),
        ([6, 8], [4, 6, 8], "x.xxx", True),
        ([6, 8], [4, 6, 8], "xx", False),
        ([2, 4, 6, 8], [2, 4, 6, 8], "x", False),
        # Good events stand between.
        ([4, 6, 8], [4, 5, 6, 7, 8, 9], "xxx", True),
        ([4, 6, 8], [4, 6, 7, 8], "xx", True),
        ([4, 6, 8], [4, 6, 7, 8], "xxx", False),
        ([4, 6, 7], [4, 6, 7, 8], "xxx", True),
        # They are of some other time.
        ([1, 2, 3], [1, 2, 3], "xxx", True),
        # The topic holds them no more.
        ([4, 6, 8], [8], "xx", True),
        ([4, 6, 8], [], "xxx", True),
    ],
)
def test_bad_events_in_a_row_count_on_after_a_restart(
    before: list[int], events: list[int], bad: str, passes: bool
) -> None:
    one = guard(before, events)
    offsets = np.arange(10, 10 + 2 * len(bad), 2, dtype=np.int64)
    reasons = np.array([None if event == GOOD else "empty" for event in bad], dtype=object)
    if passes:
        one.judge(np.zeros(len(bad), np.int64), offsets, reasons)
        return
    with pytest.raises(TooManyDeadLetters, match="4 of 4 events"):
        one.judge(np.zeros(len(bad), np.int64), offsets, reasons)


def test_accepted_dead_letters_before_a_restart_are_in_no_row() -> None:
    one = guard([4, 6, 8], [4, 6, 8], p0=7)
    one.judge(np.zeros(2, np.int64), np.array([10, 12]), np.array(["empty"] * 2, dtype=object))
    with pytest.raises(TooManyDeadLetters, match="up to offset 14 "):
        one.judge(np.zeros(1, np.int64), np.array([14]), np.array(["empty"], dtype=object))


def test_what_this_run_found_good_ends_a_row_of_an_earlier_one() -> None:
    one = guard(before=[7, 8, 9], events=[7, 8, 9])
    show(one, GOOD * 10)
    show(one, "x" + GOOD, first=10)
