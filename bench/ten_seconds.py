"""The benchmarks' job: page views per ten-second window, with or without exact uniques."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from jobs.views import Job, Tumbling, WindowView
from schemas.streams import PAGE_VIEWS
from udfs.measures import Count, CountDistinct, Measure, Sum

STREAM = replace(PAGE_VIEWS, pane=timedelta(seconds=10))
_COUNT_AND_SUM: dict[str, Measure] = {"views": Count(), "duration_ms": Sum("duration_ms")}

COUNT_AND_SUM = WindowView(
    name="ten_seconds",
    stream=STREAM,
    dimensions=("page_id",),
    window=Tumbling(timedelta(seconds=10)),
    measures=_COUNT_AND_SUM,
    description="Views and time per page and ten seconds.",
)
EXACT_UNIQUES = replace(
    COUNT_AND_SUM,
    name="ten_seconds_uniques",
    measures=_COUNT_AND_SUM | {"unique_users": CountDistinct("user_id")},
    description="Views, time and exact visitors per page and ten seconds.",
)
JOB = Job("ten_seconds", (STREAM,), (COUNT_AND_SUM, EXACT_UNIQUES))

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
