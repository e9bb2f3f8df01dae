"""Rows of which a rebuild can't know the events: their topic dropped them before it began."""

from __future__ import annotations

import pytest

from jobs.plan import accounting_view
from replay.differences import Cut, Verdict
from schemas.streams import PAGE_VIEWS
from tests.verify.tables import MINUTE, NOON, Row, Versions, counts, row, told

ACCOUNTING = accounting_view(PAGE_VIEWS)
# When no event of the minute after noon can change a row any more.
LATER = round((NOON + 10 * MINUTE).timestamp() * 1000)
# The rebuild began at offset 8 of partition 1, and at the first one of partition 0.
GAP = Cut(begin={"page_views": {0: 0, 1: 8}})


def aggregated(partition: int, minute: int, events: int, first: int, last: int) -> Row:
    """Return what version 1 says of the events that it aggregated in a minute after noon."""
    start = NOON + minute * MINUTE
    counted = {"events": events, "first_offset": first, "last_offset": last}
    return {
        "source_partition": str(partition),
        "window_start": start,
        "window_end": start + MINUTE,
        **counted,
    }


@pytest.fixture
def gap(versions: Versions) -> Versions:
    """Minute 0 lost two events, minute 1 lost offset 7 and maybe others, minute 2 lost none."""
    versions.fill(
        ACCOUNTING,
        1,
        [
            aggregated(1, 0, 2, 5, 6),
            aggregated(0, 0, 4, 0, 3),
            aggregated(1, 1, 9, 7, 15),
            aggregated(1, 2, 3, 16, 18),
            aggregated(0, 2, 3, 4, 6),
        ],
    )
    return versions


def test_what_the_topic_dropped_explains_what_the_new_version_lacks(gap: Versions) -> None:
    gap.both(
        [row("/a", 0, 3), row("/b", 0, 2), row("/a", 1, 5), row("/a", 2, 3)],
        [row("/a", 0, 1), row("/a", 1, 4), row("/a", 2, 2)],
    )
    view = gap.compare(cut=GAP)
    assert [(page, minute, verdict) for page, minute, verdict, _ in told(view)] == [
        ("/a", 0, "explained"),
        ("/b", 0, "explained"),
        ("/a", 1, "explained"),
        ("/a", 2, "unexplained"),
    ]
    assert {one.cause for one in view.samples_of(Verdict.EXPLAINED)} == {
        "events.page_views[1] offsets 5 to 6 were dropped from the topic before version 2 read "
        "them",
        "events.page_views[1] offset 7 was dropped from the topic before version 2 read it",
    }
    assert counts(gap.compare(cut=Cut())) == {"unexplained": 4}


def test_it_explains_no_more_than_so_many_events_and_none_that_is_more(gap: Versions) -> None:
    gap.both(
        [row("/a", 0, 3), row("/b", 0, 2), row("/a", 1, 5)],
        [row("/a", 0, 0), row("/b", 0, 3), row("/a", 1, 3), row("/c", 1, 1)],
    )
    assert counts(gap.compare(cut=GAP)) == {"unexplained": 4}


def test_without_an_accounting_nothing_is_known_of_what_was_dropped(versions: Versions) -> None:
    versions.both([row("/a", 0, 3)], [row("/a", 0, 2)])
    assert counts(versions.compare(cut=GAP)) == {"unexplained": 1}


def test_what_came_too_late_for_one_version_explains_what_it_lacks(versions: Versions) -> None:
    versions.both(
        [row("/a", 0, 3), row("/b", 1, 1), row("/a", 2, 3), row("/a", 3, 3)],
        [row("/a", 0, 5), row("/b", 1, 3), row("/a", 2, 4), row("/a", 3, 4)],
    )
    versions.fill(
        ACCOUNTING,
        1,
        [
            aggregated(1, 0, 9, 0, 8),
            aggregated(1, 0, 2, 5, 6) | {"source_partition": f"1@5@{LATER}"},
            # Too few to explain it, some that both versions missed, and some that came before the
            # window was over.
            aggregated(1, 1, 1, 7, 7) | {"source_partition": f"1@7@{LATER}"},
            aggregated(0, 2, 1, 9, 9) | {"source_partition": f"0@9@{LATER}"},
            aggregated(0, 3, 1, 11, 11) | {"source_partition": f"0@11@{LATER - 600_000}"},
        ],
    )
    versions.fill(ACCOUNTING, 2, [aggregated(0, 2, 1, 9, 9) | {"source_partition": f"0@9@{LATER}"}])
    view = versions.compare()
    assert [(page, minute, verdict) for page, minute, verdict, _ in told(view)] == [
        ("/a", 0, "explained"),
        ("/b", 1, "unexplained"),
        ("/a", 2, "unexplained"),
        ("/a", 3, "unexplained"),
    ]
    assert {one.cause for one in view.samples_of(Verdict.EXPLAINED)} == {
        "events.page_views[1] offsets 5 to 6 came too late for the windows of version 1"
    }
