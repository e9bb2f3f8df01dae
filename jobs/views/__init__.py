"""How a view is declared: folded in Arrow, as a join or in SQL. No I/O."""

from jobs.views.base import InvalidView, View
from jobs.views.counted import AnomalyView, CountedView, RankedView
from jobs.views.folded import (
    SOURCE_FIELDS,
    WINDOW_END,
    WINDOW_START,
    FoldedView,
    MilestoneView,
    SessionView,
    Sliding,
    TotalsView,
    Tumbling,
    Window,
    WindowView,
)
from jobs.views.job import Job, SeveralStreams
from jobs.views.joined import JoinView, Keeps
from jobs.views.queried import ArrivalView, QueryView, versions_table

__all__ = [
    "SOURCE_FIELDS",
    "WINDOW_END",
    "WINDOW_START",
    "AnomalyView",
    "ArrivalView",
    "CountedView",
    "FoldedView",
    "InvalidView",
    "Job",
    "JoinView",
    "Keeps",
    "MilestoneView",
    "QueryView",
    "RankedView",
    "SessionView",
    "SeveralStreams",
    "Sliding",
    "TotalsView",
    "Tumbling",
    "View",
    "Window",
    "WindowView",
    "versions_table",
]
