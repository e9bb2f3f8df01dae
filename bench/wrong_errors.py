"""The benchmarks' live job: page views with a wrong rule, which a rebuild fixes."""

from __future__ import annotations

from dataclasses import replace

from jobs import page_views
from jobs.views import WindowView
from udfs.measures import Count

WRONG = {"errors": Count("status", ">=", 400)}
JOB = replace(
    page_views.JOB,
    views=tuple(
        replace(view, measures={**view.measures, **WRONG})
        for view in page_views.JOB.views
        if isinstance(view, WindowView) and "errors" in view.measures
    ),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
