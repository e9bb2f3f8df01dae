"""The benchmarks' sliding windows: page views of the last five minutes, each minute anew."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, Sliding, WindowView
from schemas.streams import PAGE_VIEWS
from udfs.measures import Count, Sum

FIVE_MINUTES = WindowView(
    name="five_minutes",
    stream=PAGE_VIEWS,
    dimensions=("page_id",),
    window=Sliding(timedelta(minutes=5), timedelta(minutes=1)),
    measures={"views": Count(), "duration_ms": Sum("duration_ms")},
    description="Views and time per page over five minutes, each minute anew.",
)
JOB = Job("five_minutes", (PAGE_VIEWS,), (FIVE_MINUTES,))

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
