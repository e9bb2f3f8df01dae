"""The rows that late events change, as ClickHouse has them: these alone."""

from __future__ import annotations

from datetime import timedelta

from replay.late_rows import CurrentRow, current_rows
from tests.verify.tables import NOON, PAGES, SITE, Versions, row

T = round(NOON.timestamp() * 1000)
ODD = "it's \\ `é`"


def test_only_the_rows_of_the_keys_are_read(versions: Versions) -> None:
    rows = [row("/a", 0, 3, 1), row("/b", 0, 2), row(ODD, 0, 7), row("/a", 1, 5, 2, None)]
    versions.fill(PAGES, 1, rows)
    asked = {(T, "/a"), (T, ODD), (T + 60_000, "/a"), (T + 60_000, "/b")}
    assert current_rows(versions.clickhouse, PAGES, 1, asked) == {
        (T, "/a"): CurrentRow((3, 1, 5.0), 0),
        (T, ODD): CurrentRow((7, 0, 5.0), 0),
        (T + 60_000, "/a"): CurrentRow((5, 2, None), 0),
    }
    assert list(current_rows(versions.clickhouse, PAGES, 1, {(T, "/b")})) == [(T, "/b")]
    assert current_rows(versions.clickhouse, PAGES, 1, ()) == {}


def test_more_keys_than_a_query_may_hold_are_asked_for_in_parts(versions: Versions) -> None:
    pages = [f"/{number}" + "é" * 1_000 for number in range(500)]
    # And one that no query may hold.
    pages.append("/" + "é" * 300_000)
    versions.fill(PAGES, 1, [row(page, 0, 1) for page in (*pages, "/other")])
    found = current_rows(versions.clickhouse, PAGES, 1, {(T, page) for page in pages})
    assert sorted(found) == sorted((T, page) for page in pages)


def test_a_view_without_dimensions_has_its_windows_for_keys(versions: Versions) -> None:
    rows = [{k: v for k, v in row("", n, n).items() if k != "page_id"} for n in range(3)]
    versions.fill(SITE, 1, rows)
    step = timedelta(minutes=1) // timedelta(milliseconds=1)
    for starts in ({(T,)}, {(T,), (T + 2 * step,)}):
        assert set(current_rows(versions.clickhouse, SITE, 1, starts)) == starts
