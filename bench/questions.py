"""What the comparison asks: over which events, of which job and views, and which rows are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import five_minutes, ten_seconds
from bench.expected import Frames, page_views, page_windows, payments, thefts, visits
from bench.peers.protocol import Rows, Table
from bench.worlds import MINUTE, Cards, Shop, Traffic, Visits, World
from deploy.settings import PROJECT_ROOT
from jobs import orders, transactions
from jobs import page_views as page_views_job
from jobs.views import Job, View

_TEN_SECONDS = 10_000


@dataclass(frozen=True)
class Question:
    """A question; `views` are those of the job that this project runs, all where empty.

    What is of windows has their `size_ms` and `slide_ms`.
    """

    text: str
    world: Callable[[int], World]
    """By number of events."""
    job: Job
    views: tuple[str, ...]
    tables: tuple[Table, ...]
    answer: Callable[[World], Frames]
    size_ms: int = 0
    slide_ms: int = 0
    uniques: bool = False

    @property
    def script(self) -> Path | None:
        """The job's module, None where the catalogue has the job."""
        own = PROJECT_ROOT / "bench" / f"{self.job.name}.py"
        return own if own.exists() else None

    def view(self, name: str, namespace: str) -> View:
        """Return one of the job's views as it is called in `namespace`."""
        return next(view for view in self.job.within(namespace).views if view.name == name)


_PAGE = ("window_start", "page_id")
_VIEWS_AND_TIME = ("views", "duration_ms")
_MEASURES = ("views", "unique_users", "avg_duration_ms", "errors")
_SESSIONS = Table(
    "page_view_sessions", ("user_id", "session_start"), ("pages", "duration_ms"), weight="pages"
)
_ALL_PAGE_VIEWS = (
    Table("page_views_per_minute", _PAGE, _MEASURES, weight="views"),
    Table("page_views_sliding", _PAGE, _MEASURES, weight="views"),
    Table("site_traffic_per_minute", ("window_start",), _MEASURES, weight="views"),
    Table("unique_users_per_hour", ("window_start",), _MEASURES[:2], weight="views"),
    _SESSIONS,
    Table(
        "page_stats",
        ("page_id",),
        ("views", "unique_users", "errors", "first_seen", "last_seen"),
        weight="views",
    ),
    Table("page_milestones", ("page_id", "views"), ("reached_at", "event_id")),
    Table("top_pages", ("window_start", "rank"), ("page_id", "views")),
)


def _windows(job: Job, view: str, size: int, slide: int, *more: str) -> Question:
    measures = (*_VIEWS_AND_TIME, *more)
    return Question(
        text="",
        world=Traffic,
        job=job,
        views=(view,),
        tables=(Table(view, _PAGE, measures, weight="views"),),
        answer=page_windows(view, size, slide, *measures),
        size_ms=size,
        slide_ms=slide,
        uniques=bool(more),
    )


QUESTIONS = {
    "W1": replace(
        _windows(ten_seconds.JOB, "ten_seconds", _TEN_SECONDS, _TEN_SECONDS),
        text="views and time per page and 10 seconds",
    ),
    "W2": replace(
        _windows(
            ten_seconds.JOB, "ten_seconds_uniques", _TEN_SECONDS, _TEN_SECONDS, "unique_users"
        ),
        text="W1 with exact visitors",
    ),
    "W3": replace(
        _windows(five_minutes.JOB, "five_minutes", 5 * MINUTE, MINUTE),
        text="W1 per page and 5 minutes, each minute anew",
    ),
    "W4": Question(
        text="visits: each visitor's page views without a pause of 30 minutes",
        world=Visits,
        job=page_views_job.JOB,
        views=("page_view_sessions",),
        tables=(_SESSIONS,),
        answer=visits,
    ),
    "W5": Question(
        text="payments with their orders, at most a minute apart",
        world=Shop,
        job=orders.JOB,
        views=("order_payments",),
        tables=(
            Table(
                "order_payments",
                ("payment_id",),
                ("order_id", "ordered_at", "paid_at", "paid_cents"),
            ),
        ),
        answer=payments,
    ),
    "W6": Question(
        text="fraud: card payments much above the last 20, and far from the last",
        world=Cards,
        job=transactions.JOB,
        views=("fraud_alerts",),
        tables=(
            Table(
                "fraud_alerts",
                ("transaction_id",),
                ("user_id", "event_time", "amount_cents", "reasons"),
            ),
        ),
        answer=thefts,
    ),
    "W7": Question(
        text="replay of all page-view views together",
        world=Visits,
        job=page_views_job.JOB,
        views=(),
        tables=_ALL_PAGE_VIEWS,
        answer=page_views,
    ),
}


def completed(tables: Sequence[Table], rows: Rows) -> tuple[Table, ...]:
    """Return `tables` with what their rows add up to."""
    return tuple(replace(table, total=table.weigh(rows[table.view])) for table in tables)
