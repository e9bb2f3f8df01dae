"""Page views: traffic per page and per site, in one-minute and sliding windows."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView, Sliding, Tumbling, WindowView
from schemas.columns import Column, ColumnType
from schemas.streams import PAGE_VIEWS
from udfs.measures import Count, CountDistinct, Mean, Measure

MEASURES: dict[str, Measure] = {
    "views": Count(doc="Requests in the window."),
    "unique_users": CountDistinct("user_id", doc="Distinct visitors in the window, exact."),
    "avg_duration_ms": Mean("duration_ms", doc="Mean time on page; null where none was measured."),
    "errors": Count("status", ">=", 500, doc="Requests answered with a status of 500 or more."),
}

PAGE_VIEWS_PER_MINUTE = WindowView(
    name="page_views_per_minute",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Tumbling(timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic each page has, minute by minute.",
)

PAGE_VIEWS_SLIDING = WindowView(
    name="page_views_sliding",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Sliding(timedelta(minutes=5), timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic each page had over the last five minutes, each minute anew.",
)

SITE_TRAFFIC_PER_MINUTE = WindowView(
    name="site_traffic_per_minute",
    stream=PAGE_VIEWS,
    dimensions=(),
    window=Tumbling(timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic the whole site has, minute by minute.",
)

PAGE_VIEW_SESSIONS = QueryView(
    name="page_view_sessions",
    sources=(PAGE_VIEWS,),
    key_columns=("user_id", "session_start"),
    query_columns=(
        Column("user_id", ColumnType.STRING, doc="The visitor."),
        Column("session_start", ColumnType.TIMESTAMP, doc="When the first page was asked for."),
        Column("session_end", ColumnType.TIMESTAMP, doc="When the last page was asked for."),
        Column("pages", ColumnType.LONG, doc="Requests in the session."),
        Column("duration_ms", ColumnType.LONG, doc="From the first request to the last."),
        Column("entry_page", ColumnType.STRING, doc="First page of the session."),
        Column("exit_page", ColumnType.STRING, doc="Last page of the session."),
        Column("is_bounce", ColumnType.BOOLEAN, doc="Whether there was only one request."),
    ),
    # The first and the last page are those of the least and the greatest time and offset.
    sql="""
        WITH visits AS (
            SELECT user_id, event_time, event_ms,
                LPAD(CAST(event_ms AS STRING), 13, '0')
                || LPAD(CAST(source_offset AS STRING), 19, '0') || page_id AS page
            FROM page_views)
        SELECT user_id,
            TO_TIMESTAMP_LTZ(MIN(event_ms), 3), TO_TIMESTAMP_LTZ(MAX(event_ms), 3),
            COUNT(*), MAX(event_ms) - MIN(event_ms),
            SUBSTRING(MIN(page), 33), SUBSTRING(MAX(page), 33), COUNT(*) = 1
        FROM TABLE(SESSION(
            TABLE visits PARTITION BY user_id, DESCRIPTOR(event_time), INTERVAL '30' MINUTE))
        GROUP BY user_id, window_start, window_end
    """,
    time_columns=("session_start", "session_end"),
    settled_after=timedelta(minutes=30),
    description="Each visit: the pages one visitor asked for with no pause of 30 minutes.",
)

JOB = Job(
    "page_views",
    (PAGE_VIEWS,),
    (PAGE_VIEWS_PER_MINUTE, PAGE_VIEWS_SLIDING, SITE_TRAFFIC_PER_MINUTE, PAGE_VIEW_SESSIONS),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
