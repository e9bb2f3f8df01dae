"""From a job's views to what its operators run: pane stores, fields, topics. No I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jobs.views import (
    SOURCE_FIELDS,
    AnomalyView,
    ArrivalView,
    CountedView,
    FoldedView,
    InvalidView,
    Job,
    JoinView,
    MilestoneView,
    QueryView,
    RankedView,
    SessionView,
    TotalsView,
    Tumbling,
    View,
    WindowView,
)
from jobs.views.names import accounting_name
from schemas.streams import Stream
from udfs.anomalies import AnomalyStore
from udfs.avro_columns import wide_type
from udfs.envelope import STATE_FORMAT
from udfs.joins import LEFT, RIGHT, SIDES, JoinInput, JoinRows, JoinSide, JoinStore
from udfs.lateness import milliseconds
from udfs.measures import Count, Max, Min
from udfs.milestones import MilestoneStore
from udfs.panes import WINDOW, PaneStore, WindowedView
from udfs.ranks import RankStore
from udfs.sessions import SessionStore
from udfs.stores import FoldedStore
from udfs.totals import TotalsStore

SOURCE_PARTITION, SOURCE_OFFSET = SOURCE_FIELDS
LATE = ", late up to "
"""Begins the part of a layout that tells how late the view's events may come."""
_ARRIVALS = "-arrivals"


def group_of_job(group: str) -> str:
    """Return the consumer group of the job that reads in `group`, be it as events arrive."""
    return group.removesuffix(_ARRIVALS)


def accounting_view(stream: Stream) -> WindowView:
    """Return the view that every job writes beside its own: which offsets it aggregated."""
    return WindowView(
        name=accounting_name(stream.name),
        stream=stream,
        dimensions=(SOURCE_PARTITION,),
        window=Tumbling(stream.pane),
        measures={
            "events": Count(doc="Events aggregated."),
            "first_offset": Min(SOURCE_OFFSET, doc="Least offset aggregated."),
            "last_offset": Max(SOURCE_OFFSET, doc="Greatest offset aggregated."),
        },
        description=f"How many events of {stream.name} each partition gave to the views. A "
        "partition such as 3@1841@1431857130000 stands for those from offset 1841 on that it "
        "brought after a silence, when time was so far (epoch milliseconds): views whose windows "
        "were written and forgotten by then do not have them.",
    )


@dataclass(frozen=True)
class Input:
    """One stream as a job reads it: from which topic, into which panes, with which columns.

    `columns` are the event fields that SQL queries read; none where there is no such query.
    `fields` are all that are looked at. `hold` is how far the watermark of the source trails the
    stream's, in milliseconds: queries must not find an event late that the decode let through.
    `arrival_columns` are what the views read that look at events as they arrive. With
    `has_versions` a query joins the stream as of its own events' times. `joins` are those that the
    stream is a side of.
    """

    stream: Stream
    topic: str
    views: tuple[FoldedView, ...]
    columns: tuple[str, ...]
    fields: tuple[str, ...]
    is_queried: bool
    arrival_columns: tuple[str, ...] = ()
    has_arrivals: bool = False
    has_versions: bool = False
    joins: tuple[JoinInput, ...] = ()

    @property
    def accounting(self) -> View:
        """The view that tells which offsets were aggregated; it stands last."""
        return self.views[-1]

    @property
    def stores(self) -> tuple[FoldedStore, ...]:
        """A pane store for all views of the same dimensions and pane; one for each other view."""
        windowed = tuple(view for view in self.views if isinstance(view, WindowView))
        others = (
            store(view)
            for kind, store in _STORES.items()
            for view in self.views
            if isinstance(view, kind)
        )
        found = (*pane_stores(self.stream, windowed), *others)
        for one in found:
            _refuse_clashes(one)
        return found

    @property
    def hold(self) -> int:
        """Milliseconds by which the source's watermark trails the stream's own."""
        return whole_ms(self.stream.allowed_lateness + self.stream.pane) if self.is_queried else 0

    @property
    def shows_when_over(self) -> bool:
        """Whether some view shows rows only once the watermark has passed them.

        Windows show theirs early, totals and pairs of a join without regard to time.
        """
        judged = any(not isinstance(view, WindowView | TotalsView) for view in self.views)
        return self.is_queried or judged or any(one.store.tells_alone for one in self.joins)


@dataclass(frozen=True)
class JobPlan:
    """All that the operators of one job at one version need to know.

    `views` holds, after the job's own, an accounting for each stream. `copy` is a topic with the
    same events at the same offsets that is read instead of the one stream's own, for as long as
    that one lacks its first events.
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
        """The topic that a job over one stream reads."""
        return self.copy or self.job.stream.topic

    @property
    def group(self) -> str:
        """Consumer group in which the streams are read."""
        return f"kappa-{self.name}"

    @property
    def arrivals_group(self) -> str:
        """Consumer group in which they are read again, as they arrive."""
        return f"{self.group}{_ARRIVALS}"

    def groups_of(self, source: Input) -> tuple[str, ...]:
        """Return the consumer groups in which `source` is read."""
        return (self.group, self.arrivals_group) if source.has_arrivals else (self.group,)

    @property
    def groups(self) -> tuple[str, ...]:
        """All consumer groups of the job."""
        return tuple(dict.fromkeys(g for source in self.inputs for g in self.groups_of(source)))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The streams, in the job's order."""
        return tuple(self._input(stream) for stream in self.job.streams)

    @property
    def queries(self) -> tuple[QueryView, ...]:
        """The views that are written in SQL."""
        return tuple(view for view in self.views if isinstance(view, QueryView))

    @property
    def read_queries(self) -> tuple[QueryView, ...]:
        """The plan's SQL views and those of the job that they read, in the job's order."""
        chosen = {view.name for view in self.queries}
        needed: list[QueryView] = []
        for view in reversed(self.job.views):
            if isinstance(view, QueryView) and (
                view.name in chosen or any(reader.names(view) for reader in needed)
            ):
                needed.insert(0, view)
        return tuple(needed)

    @property
    def joins(self) -> tuple[JoinStore, ...]:
        """A store for all views over the same pairs."""
        found = join_stores(tuple(v for v in self.views if isinstance(v, JoinView)))
        for one in found:
            _refuse_clashes(one)
        return found

    @property
    def layout(self) -> dict[str, str]:
        """What each view computes, as text by view name; state fits only the same.

        Views of one join share their state: without one of them it is another. All but queries keep
        theirs in books, which releases may write in other ways, and which have forgotten what could
        not be corrected any more: with more lateness it would come in time again.
        """
        shared = {rows.name: f" {store.layout}" for store in self.joins for rows in store.views}
        return {
            view.name: view.layout + shared.get(view.name, "") + _books(view) for view in self.views
        }

    @property
    def topics(self) -> dict[str, str]:
        """View topic by view name."""
        return {view.name: view.topic(self.version) for view in self.views}

    def _input(self, stream: Stream) -> Input:
        folded = tuple(v for v in self.views if isinstance(v, FoldedView) and v.stream == stream)
        reading = [view for view in self.read_queries if stream in view.streams]
        arrivals = [view for view in reading if isinstance(view, ArrivalView)]
        queries = [view for view in reading if not isinstance(view, ArrivalView)]
        columns = dict.fromkeys(name for view in queries for name in view.fields_of(stream))
        at_once = dict.fromkeys(name for view in arrivals for name in view.fields_of(stream))
        joins = tuple(
            JoinInput(store, side)
            for store in self.joins
            for side in SIDES
            if store.sides[side].stream == stream.name
        )
        joined = {name for one in joins for name in one.used_fields}
        return Input(
            stream,
            self.copy or stream.topic,
            folded,
            tuple(columns),
            tuple(sorted(used_fields(folded) | joined | set(columns))),
            bool(queries),
            tuple(at_once),
            bool(arrivals),
            any(view.joins(stream) for view in queries),
            joins,
        )


def _books(view: View) -> str:
    if isinstance(view, QueryView):
        return ""
    lateness = ", ".join(str(whole_ms(stream.allowed_lateness)) for stream in view.streams)
    return f" in books {STATE_FORMAT}{LATE}{lateness} ms"


def _refuse_clashes(store: FoldedStore | JoinStore) -> None:
    """Raise `InvalidView` where a field has the name of a column that a store needs itself."""
    counts = Counter([*store.schema.names, WINDOW])
    if clashing := [name for name, count in counts.items() if count > 1]:
        raise InvalidView(
            f"{store.name}: what is kept of events has columns of its own called {clashing}; "
            "no field may be called so that events are grouped or joined by."
        )


def versioned(job_name: str, version: int) -> str:
    """Return Flink's name of a job at `version`; version 1 has no suffix."""
    return job_name if version == 1 else f"{job_name}.v{version}"


def reading_copy(name: str) -> str:
    """Return what the job `name` is called while it reads a copy of its events topic."""
    return f"{name}.archive"


def plan(job: Job, version: int, views: tuple[str, ...] = ()) -> JobPlan:
    """Plan `job` at `version`, all its views or the ones named, and its accounting."""
    chosen = tuple(v for v in job.views if not views or v.name in views)
    accounting = (accounting_view(stream) for stream in job.streams)
    return JobPlan(job, version, (*chosen, *accounting))


def pane_stores(stream: Stream, views: tuple[WindowView, ...]) -> tuple[PaneStore, ...]:
    """Group `views` into the fewest stores whose panes make up their windows."""
    _, lateness, _ = milliseconds(stream)
    grouped: dict[tuple[tuple[str, ...], int], list[WindowedView]] = defaultdict(list)
    for view in views:
        windowed = windowed_view(view)
        grouped[(view.dimensions, windowed.slide)].append(windowed)
    return tuple(
        PaneStore(f"{'+'.join(dims) or 'all'}@{pane}", dims, pane, lateness, tuple(members))
        for (dims, pane), members in grouped.items()
    )


def windowed_view(view: WindowView) -> WindowedView:
    """Return the windows of `view` in milliseconds."""
    size, slide = whole_ms(view.window.size), whole_ms(view.window.slide)
    accounts = view.name == accounting_view(view.stream).name
    return WindowedView(view.name, size, slide, tuple(view.measures.items()), accounts)


def session_store(view: SessionView) -> SessionStore:
    """Return the store of the sessions of `view`."""
    _, lateness, pane = milliseconds(view.stream)
    measures = tuple(view.measures.items())
    gap = whole_ms(view.gap)
    return SessionStore(
        f"{view.name}@sessions", view.name, view.dimensions, gap, pane, lateness, measures
    )


def milestone_store(view: MilestoneView) -> MilestoneStore:
    """Return the store of the events and counts of `view`."""
    _, lateness, pane = milliseconds(view.stream)
    return MilestoneStore(
        name=f"{view.name}@milestones",
        view=view.name,
        dimensions=view.dimensions,
        id_field=view.id_field,
        counted=view.counted.name,
        reached=view.reached.name,
        every=view.every,
        pane=pane,
        allowed_lateness=lateness,
        kept=whole_ms(view.state_retention),
    )


def totals_store(view: TotalsView) -> TotalsStore:
    """Return the store of the totals of `view`."""
    measures = tuple(view.measures.items())
    return TotalsStore(f"{view.name}@totals", view.name, view.dimensions, measures)


def rank_store(view: RankedView) -> RankStore:
    """Return the store of the counts of `view`."""
    return RankStore(
        name=f"{view.name}@ranks", rank=view.rank.name, top=view.top, **_counts_of(view)
    )


def anomaly_store(view: AnomalyView) -> AnomalyStore:
    """Return the store of the counts of `view`."""
    return AnomalyStore(
        name=f"{view.name}@anomalies",
        lookback=whole_ms(view.lookback),
        spike=view.spike,
        critical=view.critical,
        baseline=view.baseline.name,
        severity=view.severity.name,
        **_counts_of(view),
    )


def _counts_of(view: CountedView) -> dict[str, Any]:
    """Return what a store of counts knows, whatever they are judged by."""
    _, lateness, pane = milliseconds(view.stream)
    return {
        "view": view.name,
        "keys": view.dimensions,
        "size": whole_ms(view.window.size),
        "pane": pane,
        "allowed_lateness": lateness,
        "counted": view.counted.name,
    }


_STORES: Mapping[type[FoldedView], Callable[[Any], FoldedStore]] = {
    SessionView: session_store,
    MilestoneView: milestone_store,
    TotalsView: totals_store,
    RankedView: rank_store,
    AnomalyView: anomaly_store,
}


def join_stores(views: tuple[JoinView, ...]) -> tuple[JoinStore, ...]:
    """Group `views` into stores of the same pairs."""
    grouped: dict[tuple[object, ...], list[JoinView]] = defaultdict(list)
    for view in views:
        where = tuple(sorted(view.left_where.items()))
        names = (view.left.name, view.right.name)
        grouped[(*names, view.on, view.before, view.after, where)].append(view)
    return tuple(_join_store(tuple(members)) for members in grouped.values())


def _join_store(views: tuple[JoinView, ...]) -> JoinStore:
    first = views[0]
    before, after = whole_ms(first.before), whole_ms(first.after)
    where = tuple(sorted(first.left_where.items()))
    sides = []
    for side, reach in ((LEFT, after), (RIGHT, before)):
        stream = first.streams[side]
        used = {name for view in views for name in view.kept_fields[side]}
        fields = (one for one in stream.schema["fields"] if one["name"] in used)
        kept = tuple((one["name"], wide_type(one)) for one in fields)
        _, lateness, pane = milliseconds(stream)
        conditions = where if side == LEFT else ()
        sides.append(JoinSide(stream.name, kept, conditions, reach, pane, lateness))
    name = f"{first.left.name}+{first.right.name}@{first.on} {before} {after} {dict(where)}"
    rows = tuple(JoinRows(v.name, v.keeps.value, tuple(v.values.items()), v.key) for v in views)
    left, right = sides
    pane = max(left.pane, right.pane)
    return JoinStore(name, first.on, before, after, pane, (left, right), rows)


def used_fields(views: tuple[FoldedView, ...]) -> set[str]:
    """Return the event fields that `views` look at."""
    return {name for view in views for name in view.used_fields} - set(SOURCE_FIELDS)


def whole_ms(duration: timedelta) -> int:
    """Return `duration` in whole milliseconds."""
    return duration // timedelta(milliseconds=1)
