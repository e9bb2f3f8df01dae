"""Approximate distinct counts, against exact sets and in panes beside exact ones."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from tests.udfs.test_panes import MINUTE, Book, event, panes_of, store
from udfs.envelope import from_bytes, table_bytes
from udfs.measures import Count, CountDistinct, CountDistinctApprox
from udfs.panes import PaneStore
from udfs.sketches import LG_K, STANDARD_ERROR, count, sketch_of, union
from udfs.windows import fold, settled_rows

APPROX = (("views", Count()), ("about", CountDistinctApprox("user")))
BOTH = (*APPROX, ("users", CountDistinct("user")))


def names(begin: int, end: int) -> list[str]:
    return [f"user-{number}" for number in range(begin, end)]


def test_no_value_and_few_values_are_exact() -> None:
    assert count(union([])) == count(sketch_of([])) == count(sketch_of([None])) == 0
    assert count(sketch_of(["a", "b", "a", None])) == 2
    assert count(union([sketch_of(names(0, 100)), None, sketch_of(names(50, 150))])) == 150


def test_the_empty_text_is_a_value() -> None:
    assert count(sketch_of([""])) == 1
    assert count(union([sketch_of(["", "a", None]), sketch_of(["", "-1"])])) == 3


def test_the_error_is_the_one_stated() -> None:
    assert pytest.approx(1.04 / math.sqrt(2**LG_K)) == STANDARD_ERROR
    errors = []
    for trial in range(40):
        first = trial * 10_000
        errors.append(count(sketch_of(names(first, first + 8_000))) / 8_000 - 1)
    assert max(map(abs, errors)) < 3 * STANDARD_ERROR
    deviation = math.sqrt(sum(error**2 for error in errors) / len(errors))
    assert 0.5 * STANDARD_ERROR < deviation < 1.5 * STANDARD_ERROR


@pytest.mark.parametrize("size", [5, 1_000, 3_000, 20_000])
def test_order_and_partition_do_not_matter(size: int) -> None:
    chance, values, found = random.Random(size), names(0, size), set()
    for _ in range(8):
        chance.shuffle(values)
        cuts = sorted(chance.sample(range(size), 3))
        edges = zip([0, *cuts], [*cuts, size], strict=True)
        found.add(count(union([sketch_of(values[begin:end]) for begin, end in edges])))
        found.add(count(sketch_of(values)))
    assert len(found) == 1


def test_panes_merge_in_any_split_and_travel_as_bytes() -> None:
    pages = store(measures=APPROX)
    events = [event(n % 120, f"/{n % 3}", f"u{n % 900}") for n in range(4_000)]
    whole = panes_of(pages, events)
    parts = [panes_of(pages, events[begin : begin + 700]) for begin in range(0, 4_000, 700)]
    merged = pages.merge([from_bytes(pages, table_bytes(part)) for part in reversed(parts)])
    assert counts(pages, merged) == counts(pages, whole)
    assert len(whole) == 6


@pytest.mark.parametrize("measures", [APPROX, BOTH])
def test_windows_count_what_their_panes_hold(measures: Any) -> None:
    events = [event(60 * (n % 5) + 1, "/a", f"u{n % 2_000}") for n in range(6_000)]
    events += [event(1, "/b", "one"), event(61, "/b", "one"), event(61, "/b", "two")]
    pages = store(size=5 * MINUTE, measures=measures)
    rows = closed(pages, [events[::2], events[1::2]])
    for row in rows:
        inside = [e for e in events if row["window"] <= e["at"] < row["window"] + 5 * MINUTE]
        exact = len({e["user"] for e in inside if e["page"] == row["page"]})
        assert row["about"] == pytest.approx(exact, rel=3 * STANDARD_ERROR)
        assert row.get("users", exact) == exact
    assert len(rows) == 9 + 6


def test_no_window_has_more_visitors_than_views() -> None:
    pages = store(measures=APPROX)
    # The estimates of these are 5,024 and 4,984.
    visitors = {"/more": names(5_000, 10_000), "/less": names(30_000, 35_000)}
    events = [event(1, page, user) for page, users in visitors.items() for user in users]
    assert closed(pages, [events[::2], events[1::2]]) == [
        {"window": 0, "page": "/less", "views": 5_000, "about": 4_984},
        {"window": 0, "page": "/more", "views": 5_000, "about": 5_000},
    ]


def test_a_pane_has_one_sketch_beside_its_exact_set() -> None:
    pages = store(measures=BOTH)
    panes = panes_of(pages, [event(n, "/a", f"u{n % 40}") for n in range(50)])
    assert counts(pages, panes) == [(0, "/a", 50, 40)]
    assert [len(users) for users in panes["distinct user"].to_pylist()] == [40]


def counts(pages: PaneStore, panes: pa.Table) -> list[tuple[Any, ...]]:
    order = [("pane", "ascending"), ("page", "ascending")]
    rows = panes.sort_by(order).to_pylist()
    return [(r["pane"], r["page"], r["events"], count(r["sketch user"])) for r in rows]


def closed(pages: PaneStore, batches: Sequence[Any]) -> list[dict[str, Any]]:
    book = Book()
    changed = fold(pages, book, [panes_of(pages, batch) for batch in batches])
    found = settled_rows(pages, book, changed, -1, 100 * MINUTE)
    return [row for rows in found for row in rows.table.to_pylist()]
