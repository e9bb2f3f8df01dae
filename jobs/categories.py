"""Categories of pages: which one each page is in, and the traffic of each as of its time."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import WINDOW_END, WINDOW_START, Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import PAGE_REQUESTS, PAGES

CURRENT_CATEGORIES = QueryView(
    name="current_categories",
    sources=(PAGES,),
    key_columns=("page_id",),
    query_columns=(
        Column("page_id", ColumnType.STRING, doc="The page."),
        Column("category", ColumnType.STRING, doc="The page's newest category."),
        Column(
            "since",
            ColumnType.TIMESTAMP,
            doc="Time of the newest event that told it, also where it told the same again.",
        ),
    ),
    sql="""
        SELECT page_id, category, event_time
        FROM (
            SELECT *, ROW_NUMBER() OVER (PARTITION BY page_id ORDER BY event_time DESC) AS place
            FROM pages)
        WHERE place = 1
    """,
    grows=("since",),
    state_retention=timedelta(days=10 * 365),
    description="The category that each page is in, known as soon as it changes.",
)

CATEGORY_TRAFFIC_PER_MINUTE = QueryView(
    name="category_traffic_per_minute",
    sources=(PAGE_REQUESTS, PAGES),
    key_columns=("window_start", "category"),
    query_columns=(
        Column("category", ColumnType.STRING, doc='Category when asked for, or "unknown".'),
        WINDOW_START,
        WINDOW_END,
        Column("views", ColumnType.LONG, doc="Requests for pages of the category."),
        Column("unique_users", ColumnType.LONG, doc="Distinct visitors of them, exact."),
    ),
    sql="""
        WITH categorised AS (
            SELECT COALESCE(p.category, 'unknown') AS category, r.user_id, r.event_time
            FROM page_requests AS r
            LEFT JOIN pages_versions FOR SYSTEM_TIME AS OF r.event_time AS p
                ON p.page_id = r.page_id)
        SELECT category, window_start, window_end, COUNT(*), COUNT(DISTINCT user_id)
        FROM TABLE(TUMBLE(TABLE categorised, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        GROUP BY category, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    retention=timedelta(days=20 * 365),
    description="How much traffic each category has, by what pages were when they were asked for. "
    "While no pages change, requests do not wait for changes: one told of later than its time and "
    "the requests' lateness holds for later requests only, until a rebuild, which judges the "
    "earlier ones by it as well.",
)

JOB = Job(
    "categories",
    (PAGES, PAGE_REQUESTS),
    (CURRENT_CATEGORIES, CATEGORY_TRAFFIC_PER_MINUTE),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
