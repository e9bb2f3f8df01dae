"""The benchmarks' jobs that differ in one thing from `ten_seconds`: `variants.py --case NAME`.

NAME is a job of `VARIANTS`; all other options are those of every job.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from bench import ten_seconds
from bench.trusting import TrustingEvents, trusting
from bench.width import NARROW, WIDE
from jobs.views import Job, Sliding, Tumbling, WindowView
from schemas.streams import PAGE_VIEWS, Stream
from udfs.measures import Count, CountDistinct, Max, Mean, Sum

STREAM = ten_seconds.STREAM
TRUSTING = ("no_dead_letters", "no_guards")
LATENESS = {
    "lateness_none": timedelta(0),
    "lateness_1_minute": timedelta(minutes=1),
    "lateness_20_minutes": timedelta(minutes=20),
}


def over(name: str, stream: Stream, views: Sequence[WindowView] = ()) -> Job:
    """Return a job called `name` with those views, or `ten_seconds`' own, over `stream`."""
    chosen = views or (ten_seconds.COUNT_AND_SUM, ten_seconds.EXACT_UNIQUES)
    return Job(name, (stream,), tuple(replace(view, stream=stream) for view in chosen))


def _view(name: str, by: str, window: Tumbling | Sliding) -> WindowView:
    return WindowView(
        name=name,
        stream=STREAM,
        dimensions=(by,) if by else (),
        window=window,
        measures={
            "views": Count(),
            "duration_ms": Sum("duration_ms"),
            "mean_ms": Mean("duration_ms"),
            "longest_ms": Max("duration_ms"),
            "errors": Count("status", ">=", 500),
        },
        description="One of several views of one job.",
    )


_TEN_SECONDS, _MINUTE = Tumbling(timedelta(seconds=10)), Tumbling(timedelta(minutes=1))
SEVERAL = (
    ten_seconds.COUNT_AND_SUM,
    _view("by_country", "country", _TEN_SECONDS),
    _view("pages_by_minute", "page_id", _MINUTE),
    _view("in_all", "", _TEN_SECONDS),
    _view("by_referrer", "referrer", _MINUTE),
    _view("last_minute", "page_id", Sliding(timedelta(minutes=1), timedelta(seconds=10))),
    replace(
        _view("agents", "user_agent", _MINUTE), measures={"unique_users": CountDistinct("user_id")}
    ),
)

MINUTES = replace(ten_seconds.COUNT_AND_SUM, name="minutes", window=_MINUTE)

_UNTIMELY = replace(STREAM, allowed_lateness=timedelta(0))
VARIANTS = {
    job.name: job
    for job in (
        ten_seconds.JOB,
        over("no_dead_letters", trusting(STREAM)),
        over("no_guards", trusting(_UNTIMELY)),
        *(over(name, replace(STREAM, allowed_lateness=late)) for name, late in LATENESS.items()),
        over("narrow", NARROW),
        over("wide", WIDE),
        over("several", STREAM, SEVERAL),
        # By the stream's own panes, a minute each, so that a pane has as many keys as a window.
        over("minutes", PAGE_VIEWS, (MINUTES,)),
    )
}


def main() -> None:
    """Run the job that the command line names."""
    from jobs import pipeline, run

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--case", choices=VARIANTS, required=True)
    known, sys.argv[1:] = parser.parse_known_args()
    if known.case in TRUSTING:
        # A job can't be declared so: nothing but this measurement may leave dead letters out.
        vars(pipeline)["DecodeEvents"] = TrustingEvents
    run.main(VARIANTS[known.case])


if __name__ == "__main__":
    main()
