"""Events to panes and panes to windows, with rows written by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from udfs.measures import Count, CountDistinct, Max, Mean, Measure, Min, Sum
from udfs.panes import PaneStore, WindowedView, buckets_of, split
from udfs.windows import (
    early_rows,
    expire,
    fold,
    in_time,
    missed_rows,
    next_deadline,
    settled_rows,
    windows_closing,
)

MINUTE = 60_000
MEASURES: tuple[tuple[str, Measure], ...] = (
    ("views", Count()),
    ("users", CountDistinct("user")),
    ("errors", Count("status", ">=", 500)),
    ("mean_ms", Mean("ms")),
    ("sum_ms", Sum("ms")),
    ("min_ms", Min("ms")),
    ("max_ms", Max("ms")),
)
COUNTED = (("views", Count()), ("users", CountDistinct("user")))


def store(size: int = MINUTE, measures: Any = MEASURES) -> PaneStore:
    return PaneStore(
        "pages", ("page",), MINUTE, 5 * MINUTE, (WindowedView("v", size, MINUTE, measures),)
    )


def event(second: float, page: str, user: str, status: int = 200, ms: int | None = None) -> Any:
    return {"at": int(second * 1000), "page": page, "user": user, "status": status, "ms": ms}


def panes_of(pages: PaneStore, events: Sequence[Any]) -> pa.Table:
    schema = pa.schema(
        [("page", pa.string()), ("user", pa.string()), ("status", pa.int32()), ("ms", pa.int64())]
    )
    table = pa.Table.from_pylist(
        [{k: v for k, v in e.items() if k != "at"} for e in events], schema=schema
    )
    return pages.from_events(table, np.array([e["at"] for e in events], dtype=np.int64))


class Book(dict[int, pa.Table]):
    """A `PaneBook` in memory."""

    def starts(self) -> list[int]:
        return sorted(self)

    def read(self, pane: int) -> pa.Table | None:
        return self.get(pane)

    def write(self, pane: int, table: pa.Table) -> None:
        self[pane] = table

    def remove(self, pane: int) -> None:
        del self[pane]


def rows(found: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for each in found for row in each.table.to_pylist()]


def test_every_measure_of_a_window() -> None:
    pages, book = store(), Book()
    events = [
        event(1, "/a", "ann", 200, 100),
        event(2, "/a", "bob", 500, None),
        event(3, "/a", "ann", 503, 300),
        event(4, "/b", "cat", 404),
    ]

    changed = fold(pages, book, [panes_of(pages, events)])

    assert rows(settled_rows(pages, book, changed, -1, MINUTE)) == [
        (0, "/a", 3, 2, 2, 200.0, 400, 100, 300),
        (0, "/b", 1, 1, 0, None, None, None, None),
    ]


def test_a_condition_with_a_fraction_holds_for_whole_numbers_of_any_size() -> None:
    pages, book = store(measures=(("some", Count("ms", ">", 0.5)),)), Book()
    events = [event(1, "/a", "ann", 200, ms) for ms in (0, 1, 2**53 + 1, -(2**63), None)]

    changed = fold(pages, book, [panes_of(pages, events)])

    assert rows(settled_rows(pages, book, changed, -1, MINUTE)) == [(0, "/a", 2)]


def test_it_does_not_matter_how_events_are_split_into_batches() -> None:
    pages = store()
    events = [event(i % 130, f"/{i % 3}", f"u{i % 7}", 200 + 150 * (i % 3), i) for i in range(500)]
    whole, parts = Book(), Book()

    fold(pages, whole, [panes_of(pages, events)])
    for begin in range(0, 500, 37):
        fold(pages, parts, [panes_of(pages, events[begin : begin + 37])])

    none = panes_of(pages, []).select(["pane", "page"])
    expected = rows(settled_rows(pages, whole, none, -1, 10 * MINUTE))
    assert len(expected) == 9
    assert rows(settled_rows(pages, parts, none, -1, 10 * MINUTE)) == expected


def test_a_window_is_written_when_the_watermark_reaches_its_end_and_not_before() -> None:
    pages, book = store(measures=COUNTED), Book()
    changed = fold(pages, book, [panes_of(pages, [event(5, "/a", "ann"), event(70, "/a", "ann")])])

    assert rows(settled_rows(pages, book, changed, -1, MINUTE - 2)) == []
    assert rows(settled_rows(pages, book, changed, -1, MINUTE - 1)) == [(0, "/a", 1, 1)]


def test_a_late_view_updates_its_own_minute() -> None:
    pages, book = store(measures=COUNTED), Book()
    fold(pages, book, [panes_of(pages, [event(5, "/a", "ann"), event(6, "/b", "ann")])])

    changed = fold(pages, book, [panes_of(pages, [event(30, "/a", "bob")])])

    assert rows(settled_rows(pages, book, changed, 2 * MINUTE, 2 * MINUTE)) == [(0, "/a", 2, 2)]


def test_sliding_windows_share_panes_and_count_a_visitor_once() -> None:
    pages, book = store(3 * MINUTE, COUNTED), Book()
    events = [event(10, "/a", "ann"), event(70, "/a", "ann"), event(130, "/a", "bob")]

    changed = fold(pages, book, [panes_of(pages, events)])

    assert rows(settled_rows(pages, book, changed, -(10**9), 5 * MINUTE)) == [
        (-2 * MINUTE, "/a", 1, 1),
        (-1 * MINUTE, "/a", 2, 1),
        (0, "/a", 3, 2),
        (MINUTE, "/a", 2, 2),
        (2 * MINUTE, "/a", 1, 1),
    ]


def test_a_window_whose_lateness_is_over_is_not_written_anew_from_the_panes_it_has_left() -> None:
    pages, book = store(3 * MINUTE, COUNTED), Book()
    come = [event(second, "/a", "ann") for second in (10, 70, 130)]
    fold(pages, book, [panes_of(pages, come)])
    time = 8 * MINUTE - 1
    expire(pages, book, time)
    assert book.starts() == [MINUTE, 2 * MINUTE]

    changed = fold(pages, book, [panes_of(pages, [event(131, "/a", "bob")])])

    # The window of the first three minutes is over, and has lost its first.
    assert rows(settled_rows(pages, book, changed, time, time)) == [
        (MINUTE, "/a", 3, 2),
        (2 * MINUTE, "/a", 2, 2),
    ]
    assert rows(settled_rows(pages, book, changed, time - 1, time - 1))[0] == (0, "/a", 3, 2)


def test_a_mean_is_told_though_its_sum_has_more_digits_than_a_fraction() -> None:
    pages, book = store(measures=(("mean_ms", Mean("ms")),)), Book()
    events = [event(5, "/a", "ann", ms=2**53 + 1), event(6, "/a", "bob", ms=2**53 + 1)]

    changed = fold(pages, book, [panes_of(pages, events)])

    assert rows(settled_rows(pages, book, changed, -1, MINUTE)) == [(0, "/a", float(2**53))]


def test_early_rows_are_the_changed_ones_of_open_windows() -> None:
    pages, book = store(measures=COUNTED), Book()
    fold(pages, book, [panes_of(pages, [event(5, "/a", "ann"), event(65, "/b", "bob")])])

    changed = fold(pages, book, [panes_of(pages, [event(6, "/a", "ann"), event(66, "/c", "cat")])])

    assert rows(early_rows(pages, book, changed, MINUTE - 1)) == [(MINUTE, "/c", 1, 1)]


def test_a_pane_is_kept_until_nothing_can_change_its_last_window() -> None:
    pages, book = store(3 * MINUTE, COUNTED), Book()
    fold(pages, book, [panes_of(pages, [event(10, "/a", "ann")])])
    last = 3 * MINUTE - 1 + 5 * MINUTE

    expire(pages, book, last - 1)
    assert book.starts() == [0]
    expire(pages, book, last)
    assert book.starts() == []


def test_deadlines_are_window_ends_then_the_expiry() -> None:
    pages = store(2 * MINUTE, COUNTED)

    found, watermark = [], -(10**9)
    while (deadline := next_deadline(pages, [0], watermark)) is not None:
        found.append(deadline)
        watermark = deadline

    assert found == [MINUTE - 1, 2 * MINUTE - 1, 7 * MINUTE - 1]


def test_windows_are_due_at_their_ends_however_many_a_pane_is_in() -> None:
    rng = np.random.default_rng(7)
    for _ in range(300):
        slide, windows = int(rng.integers(1, 50)), int(rng.integers(1, 40))
        view = WindowedView("v", slide * windows, slide, COUNTED)
        pages = PaneStore("pages", ("page",), slide, int(rng.integers(0, 99)), (view,))
        panes = [slide * int(at) for at in rng.integers(-60, 60, 5)]
        fired = int(rng.integers(-3_000, 3_000))
        watermark = fired + int(rng.integers(0, 500))
        starts = sorted({start for pane in panes for start in view.starts_with(pane)})
        ends = [start + view.size - 1 for start in starts]
        due = [end + 1 - view.size for end in ends if fired < end <= watermark]
        assert windows_closing(view, panes, fired, watermark).tolist() == due
        moments = [*ends, *map(pages.expiry, panes)]
        later = [moment for moment in moments if moment > watermark]
        assert next_deadline(pages, panes, watermark) == min(later, default=None)


def test_a_row_of_a_page_always_goes_to_the_same_bucket() -> None:
    pages = store(measures=COUNTED)
    table = panes_of(pages, [event(i, f"/{i % 40}", f"u{i}") for i in range(400)])

    buckets = buckets_of(pages, table, 16)

    assert set(buckets.tolist()) <= set(range(16))
    by_page = {(page, b) for page, b in zip(table["page"].to_pylist(), buckets, strict=True)}
    assert len(by_page) == 40
    # Pinned: another hash would lose the state of every running job.
    assert dict(by_page)["/0"] == PINNED_BUCKET
    parts = list(split(pages, table, 16))
    assert sum(len(batch) for _, batch in parts) == len(table)
    assert [b for b, _ in parts] == sorted(set(buckets.tolist()))


def test_null_dimensions_count_as_the_empty_text() -> None:
    pages, book = store(measures=COUNTED), Book()
    table = pages.from_events(
        pa.table(
            {"page": pa.array([None, ""], pa.string()), "user": pa.array([None, "a"], pa.string())}
        ),
        np.array([1, 2], dtype=np.int64),
    )

    changed = fold(pages, book, [table])

    assert rows(settled_rows(pages, book, changed, -1, MINUTE)) == [(0, "", 2, 1)]


PINNED_BUCKET = 4


def test_what_an_expired_pane_is_sent_is_accounted_for_by_partition_and_offset() -> None:
    measures = (
        ("events", Count()),
        ("first_offset", Min("offset")),
        ("last_offset", Max("offset")),
    )
    own = WindowedView("events_accounting", MINUTE, MINUTE, measures, accounts=True)
    other = WindowedView("by_partition", MINUTE, MINUTE, (("events", Count()),))
    offsets = PaneStore("offsets", ("partition",), MINUTE, 5 * MINUTE, (own, other))
    events = pa.table({"partition": ["3", "3", "1", "3"], "offset": [1843, 1841, 7, 1850]})
    times = np.array([1_000, 2_000, 3_000, 61_000], dtype=np.int64)
    came = [offsets.from_events(events.slice(i, 2), times[i : i + 2]) for i in (0, 2)]

    assert in_time(offsets, came, 6 * MINUTE - 2)[1].num_rows == 0
    fresh, expired = in_time(offsets, came, 6 * MINUTE - 1)

    assert [table["pane"].to_pylist() for table in fresh] == [[MINUTE]]
    (missed,) = missed_rows(offsets, expired, 7)
    assert missed.view is own
    assert rows([missed]) == [(0, "1@7@7", 1, 7, 7), (0, "3@1841@7", 2, 1841, 1843)]
    assert in_time(offsets, [], 0)[0] == []
