"""Page views: traffic of pages and site, visits, all-time figures, milestones, anomalies."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import (
    AnomalyView,
    Job,
    MilestoneView,
    RankedView,
    SessionView,
    Sliding,
    TotalsView,
    Tumbling,
    WindowView,
)
from schemas.columns import Column, ColumnType
from schemas.streams import PAGE_VIEWS
from udfs.ewma import NEW_WEIGHT, OLD_WEIGHT
from udfs.measures import (
    Count,
    CountDistinct,
    CountDistinctApprox,
    Duration,
    Earliest,
    First,
    Last,
    Latest,
    Mean,
    Single,
)

MILESTONE_VIEWS = 1_000
TOP_PAGES = 10
SPIKE, CRITICAL = 3, 10
"""How many times its baseline a page's views must be to be an anomaly."""
ALL_TIME = timedelta(days=10 * 365)
"""The milestones of a page that nobody asks for in so long are counted anew."""

PAGE = {"page_id": "The page."}

MEASURES: dict[str, Count | CountDistinct | Mean] = {
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

PAGE_VIEW_SESSIONS = SessionView(
    name="page_view_sessions",
    stream=PAGE_VIEWS,
    dimensions=("user_id",),
    gap=timedelta(minutes=30),
    measures={
        "pages": Count(doc="Requests in the session."),
        "duration_ms": Duration(doc="From the first request to the last."),
        "entry_page": First("page_id", doc="First page of the session."),
        "exit_page": Last("page_id", doc="Last page of the session."),
        "is_bounce": Single(doc="Whether there was only one request."),
    },
    description="Each visit: the pages one visitor asked for with no pause of 30 minutes.",
)

UNIQUE_USERS_PER_HOUR = WindowView(
    name="unique_users_per_hour",
    stream=PAGE_VIEWS,
    dimensions=(),
    window=Tumbling(timedelta(hours=1)),
    measures={
        "views": Count(doc="Requests in the hour."),
        "unique_users": CountDistinct("user_id", doc="Distinct visitors in the hour, exact."),
    },
    retention=timedelta(days=20 * 365),
    description="How many different visitors the site has, hour by hour.",
)

UNIQUE_USERS_PER_DAY = WindowView(
    name="unique_users_per_day",
    stream=PAGE_VIEWS,
    dimensions=(),
    window=Tumbling(timedelta(days=1)),
    measures={
        "views": Count(doc="Requests in the day."),
        "unique_users": CountDistinctApprox(
            "user_id",
            doc="Distinct visitors in the day, from a sketch of 2 KB: exact up to some hundred, "
            "beyond with a standard error of 1.6%, 99.7% of days less than 5% off.",
        ),
    },
    retention=timedelta(days=20 * 365),
    description="How many different visitors the site has, day by day (UTC), in state that does "
    "not grow with them.",
)

PAGE_STATS = TotalsView(
    name="page_stats",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    measures={
        "views": Count(doc="Requests for the page since the first."),
        "unique_users": CountDistinct("user_id", doc="Distinct visitors of the page, exact."),
        "avg_duration_ms": MEASURES["avg_duration_ms"],
        "errors": MEASURES["errors"],
        "first_seen": Earliest(doc="Time of the first request."),
        "last_seen": Latest(doc="Time of the newest request."),
    },
    description="All-time figures of each page, which /api/page-stats/<page_id> answers. To be "
    "exact it remembers every visitor of a page.",
)

PAGE_MILESTONES = MilestoneView(
    name="page_milestones",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    every=MILESTONE_VIEWS,
    counted=Column("views", ColumnType.LONG, doc="Requests up to this one: a multiple of 1,000."),
    reached=Column("reached_at", ColumnType.TIMESTAMP, doc="Time of the request that made it."),
    id_field="event_id",
    state_retention=ALL_TIME,
    description=f"Each time a page has had another {MILESTONE_VIEWS:,} views, and with which.",
)

TRAFFIC_ANOMALIES = AnomalyView(
    name="traffic_anomalies",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    docs=PAGE,
    window=Tumbling(timedelta(minutes=1)),
    lookback=timedelta(hours=6),
    spike=SPIKE,
    critical=CRITICAL,
    counted=Column("views", ColumnType.LONG, doc="Requests for the page in this minute."),
    baseline=Column(
        "baseline",
        ColumnType.DOUBLE,
        doc="What was usual in its minutes with views: those of the six hours before, each "
        f"newer one weighing {NEW_WEIGHT} and all older ones together {OLD_WEIGHT}.",
    ),
    severity=Column(
        "severity",
        ColumnType.STRING,
        doc=f"spike from {SPIKE} times the baseline, critical above {CRITICAL} times.",
    ),
    retention=timedelta(days=20 * 365),
    description="Minutes in which a page had far more views than usual. Minutes without views "
    "leave what is usual as it is, and a page's first ten minutes with views in six hours are "
    "never judged.",
)

TOP_PAGES_PER_HOUR = RankedView(
    name="top_pages",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    docs=PAGE,
    window=Tumbling(timedelta(hours=1)),
    top=TOP_PAGES,
    rank=Column("rank", ColumnType.LONG, doc=f"1 to {TOP_PAGES}; of equals the lesser page first."),
    counted=Column("views", ColumnType.LONG, doc="Requests for the page in the hour."),
    retention=timedelta(days=20 * 365),
    description=f"The {TOP_PAGES} pages with the most views of each hour.",
)

JOB = Job(
    "page_views",
    (PAGE_VIEWS,),
    (
        PAGE_VIEWS_PER_MINUTE,
        PAGE_VIEWS_SLIDING,
        SITE_TRAFFIC_PER_MINUTE,
        UNIQUE_USERS_PER_HOUR,
        UNIQUE_USERS_PER_DAY,
        PAGE_VIEW_SESSIONS,
        PAGE_STATS,
        PAGE_MILESTONES,
        TRAFFIC_ANOMALIES,
        TOP_PAGES_PER_HOUR,
    ),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
