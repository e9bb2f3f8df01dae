"""From a job's views to what its operators run: pane stores, fields, topics. No I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta

from jobs.views import SOURCE_FIELDS, Job, Tumbling, View
from schemas.streams import Stream
from udfs.lateness import milliseconds
from udfs.measures import Count, Max, Min
from udfs.panes import PaneStore, WindowedView

SOURCE_PARTITION, SOURCE_OFFSET = SOURCE_FIELDS


def accounting_view(stream: Stream) -> View:
    """Return the view that every job writes beside its own: which offsets it aggregated."""
    return View(
        name=f"{stream.name}_accounting",
        stream=stream,
        dimensions=(SOURCE_PARTITION,),
        window=Tumbling(stream.pane),
        measures={
            "events": Count(doc="Events aggregated."),
            "first_offset": Min(SOURCE_OFFSET, doc="Least offset aggregated."),
            "last_offset": Max(SOURCE_OFFSET, doc="Greatest offset aggregated."),
        },
        description=f"How many events of {stream.name} each partition gave to the views.",
    )


@dataclass(frozen=True)
class JobPlan:
    """All that the operators of one job at one version need to know.

    `copy` is a topic with the same events at the same offsets that is read instead of the
    stream's own, for as long as that one lacks its first events.
    """

    job: Job
    version: int
    views: tuple[View, ...]
    copy: str = ""

    @property
    def name(self) -> str:
        """Flink job name; version 1 has no suffix."""
        name = versioned(self.job.name, self.version)
        return reading_copy(name) if self.copy else name

    @property
    def events_topic(self) -> str:
        """The topic that the job reads."""
        return self.copy or self.job.stream.topic

    @property
    def accounting(self) -> View:
        """The view that tells which offsets were aggregated; it stands last."""
        return self.views[-1]

    @property
    def stores(self) -> tuple[PaneStore, ...]:
        """The pane stores, one for all views with the same dimensions and pane."""
        return pane_stores(self.job.stream, self.views)

    @property
    def layout(self) -> dict[str, str]:
        """What each view computes, as text by view name; state fits only the same."""
        return {
            view.name: f"{view.dimensions} {view.window} {dict(view.measures)}"
            for view in self.views
        }

    @property
    def topics(self) -> dict[str, str]:
        """View topic by view name."""
        return {view.name: view.topic(self.version) for view in self.views}


def versioned(job_name: str, version: int) -> str:
    """Return Flink's name of a job at `version`; version 1 has no suffix."""
    return job_name if version == 1 else f"{job_name}.v{version}"


def reading_copy(name: str) -> str:
    """Return what the job `name` is called while it reads a copy of its events topic."""
    return f"{name}.archive"


def plan(job: Job, version: int, views: tuple[str, ...] = ()) -> JobPlan:
    """Plan `job` at `version`, all its views or the ones named, and its accounting."""
    chosen = tuple(v for v in job.views if not views or v.name in views)
    return JobPlan(job, version, (*chosen, accounting_view(job.stream)))


def pane_stores(stream: Stream, views: tuple[View, ...]) -> tuple[PaneStore, ...]:
    """Group `views` into the fewest stores whose panes make up their windows."""
    _, lateness, _ = milliseconds(stream)
    grouped: dict[tuple[tuple[str, ...], int], list[WindowedView]] = defaultdict(list)
    for view in views:
        size, slide = whole_ms(view.window.size), whole_ms(view.window.slide)
        windowed = WindowedView(view.name, size, slide, tuple(view.measures.items()))
        grouped[(view.dimensions, slide)].append(windowed)
    return tuple(
        PaneStore(f"{'+'.join(dims) or 'all'}@{pane}", dims, pane, lateness, tuple(members))
        for (dims, pane), members in grouped.items()
    )


def used_fields(plan: JobPlan) -> set[str]:
    """Return the event fields that the plan's views look at."""
    used = {name for view in plan.views for name in view.dimensions}
    used |= {m.field for view in plan.views for m in view.measures.values() if m.field}
    return used - set(SOURCE_FIELDS)


def whole_ms(duration: timedelta) -> int:
    """Return `duration` in whole milliseconds."""
    return duration // timedelta(milliseconds=1)
