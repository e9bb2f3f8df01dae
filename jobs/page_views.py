"""Page views: traffic per page and per site, in one-minute and sliding windows."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, Sliding, Tumbling, View
from schemas.streams import PAGE_VIEWS
from udfs.measures import Count, CountDistinct, Mean, Measure

MEASURES: dict[str, Measure] = {
    "views": Count(doc="Requests in the window."),
    "unique_users": CountDistinct("user_id", doc="Distinct visitors in the window, exact."),
    "avg_duration_ms": Mean("duration_ms", doc="Mean time on page; null where none was measured."),
    "errors": Count("status", ">=", 500, doc="Requests answered with a status of 500 or more."),
}

PAGE_VIEWS_PER_MINUTE = View(
    name="page_views_per_minute",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Tumbling(timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic each page has, minute by minute.",
)

PAGE_VIEWS_SLIDING = View(
    name="page_views_sliding",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Sliding(timedelta(minutes=5), timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic each page had over the last five minutes, each minute anew.",
)

SITE_TRAFFIC_PER_MINUTE = View(
    name="site_traffic_per_minute",
    stream=PAGE_VIEWS,
    dimensions=(),
    window=Tumbling(timedelta(minutes=1)),
    measures=MEASURES,
    retention=timedelta(days=20 * 365),
    description="How much traffic the whole site has, minute by minute.",
)

JOB = Job(
    "page_views",
    PAGE_VIEWS,
    (PAGE_VIEWS_PER_MINUTE, PAGE_VIEWS_SLIDING, SITE_TRAFFIC_PER_MINUTE),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
