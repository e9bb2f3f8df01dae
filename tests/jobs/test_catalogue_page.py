"""The catalogue page in docs/ is the one that the declarations give."""

from __future__ import annotations

from datetime import timedelta

from deploy.settings import PROJECT_ROOT
from jobs.catalogue import JOBS, VIEWS
from jobs.catalogue_page import nature, page, span


def test_the_page_is_of_now() -> None:
    written = (PROJECT_ROOT / "docs" / "VIEWS.md").read_text()
    assert written == page(JOBS.values()), "run: kappa views --markdown > docs/VIEWS.md"


def test_every_view_and_every_column_says_what_it_is() -> None:
    for view in VIEWS.values():
        assert view.description.endswith(".")
        for column in view.columns:
            if column.name not in ("window_start", "window_end") and column.name not in view.key:
                assert column.doc, f"{view.name}.{column.name}"


def test_a_view_says_when_its_rows_come() -> None:
    # 10 s of disorder, 30 s of lateness, a pane of 10 s and the minute that a payment may take.
    assert "once events 1 min 50 s newer" in nature(VIEWS["unmatched_orders"])
    assert "once events 50 s newer" in nature(VIEWS["daily_sales"])
    assert "renewed with each event;" in nature(VIEWS["word_counts"])
    # 10 s of disorder, 5 min of lateness and a pane of a minute.
    assert "once events 6 min 10 s newer than the window" in nature(VIEWS["top_pages"])
    assert "state ends 7 h after that" in nature(VIEWS["traffic_anomalies"])
    assert "by 16 bytes with each distinct value" in nature(VIEWS["page_stats"])


def test_a_view_says_from_where_events_must_have_been_read() -> None:
    for name in ("page_view_sessions", "page_milestones", "top_pages", "traffic_anomalies"):
        assert "have been read from every partition not idle" in nature(VIEWS[name])
    for name in ("unmatched_orders", "daily_sales"):
        assert "have been read from every partition not idle" in nature(VIEWS[name])


def test_a_stream_says_after_how_long_a_partition_is_idle() -> None:
    _, orders = page(JOBS.values()).split("\nStream [`orders`]")
    assert "A partition without events for 1 h is idle" in orders.split("\n\n")[0]


def test_a_view_says_what_of_its_state_outlasts_its_windows() -> None:
    ends = "state ends with its windows"
    versions = f"{ends}, but the newest version of each key ends %d years after its last event."
    assert f"{ends}." in nature(VIEWS["titles_per_hour"])
    # The job's time to live: its longest.
    assert versions % 10 in nature(VIEWS["category_traffic_per_minute"])
    assert versions % 5 in nature(VIEWS["sales_by_segment"])
    pattern = f"{ends}, but a few bytes stay for each key that its pattern looks at."
    assert pattern in nature(VIEWS["device_alerts"])


def test_a_view_says_which_changes_never_hold() -> None:
    lost = "that is 40 s or more older than the newest of its partition"
    for name in ("current_categories", "category_traffic_per_minute"):
        assert nature(VIEWS[name]).count(f"`pages` {lost}") == 1
    for name in ("current_segments", "sales_by_segment"):
        assert nature(VIEWS[name]).count(f"`customer_segments` {lost}") == 1
    assert lost not in nature(VIEWS["daily_sales"])


def test_spans_are_told_in_words() -> None:
    assert span(timedelta(seconds=370)) == "6 min 10 s"
    assert span(timedelta(days=20 * 365)) == "20 years"
    assert span(timedelta(days=366, hours=1)) == "1 year 1 day 1 h"
