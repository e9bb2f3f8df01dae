"""The catalogue of streams and views as a page in Markdown, from their declarations. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta

from jobs.catalogue import job_of
from jobs.plan import anomaly_store, plan
from jobs.views import (
    AnomalyView,
    ArrivalView,
    Job,
    JoinView,
    Keeps,
    MilestoneView,
    QueryView,
    RankedView,
    SessionView,
    TotalsView,
    View,
    WindowView,
)
from schemas.streams import Stream
from udfs.measures import CountDistinct

_INTRODUCTION = """\
Written by `kappa views --markdown`. A view is a table that people query; a job is the program that
keeps the views of its streams. `kappa submit JOB` runs one, `kappa generate JOB` sends its streams
made-up events, and `kappa sql "SELECT * FROM VIEW LIMIT 5"` shows what came of them.

Times are those of the events, in UTC. *Disorder* is how far events may come out of order; what
comes later than that still counts within the *allowed lateness*, and beyond it goes to the stream's
late topic instead. A view's time is that of the partition furthest behind, of all that it reads and
that are not *idle*."""


def page(jobs: Iterable[Job]) -> str:
    """Return the page: a section a job, with its streams and its views."""
    return "\n".join(_lines(tuple(jobs))) + "\n"


def _lines(jobs: tuple[Job, ...]) -> Iterator[str]:
    yield "# Views"
    yield ""
    yield from _INTRODUCTION.splitlines()
    yield from ("", "| Job | Views |", "|---|---|")
    for job in jobs:
        links = ", ".join(f"[{view.name}](#{view.name})" for view in job.views)
        yield f"| [{job.name}](#{job.name}) | {links} |"
    for job in jobs:
        yield from ("", f"## {job.name}", "")
        for stream in job.streams:
            yield from _stream(stream)
        for view in job.views:
            yield from _view(view)


def _stream(stream: Stream) -> Iterator[str]:
    yield f"Stream [`{stream.name}`](../schemas/{stream.schema_path}): {stream.description}"
    yield (
        f"Disorder {span(stream.disorder)}, allowed lateness {span(stream.allowed_lateness)}. A "
        f"partition without events for {span(stream.idle_timeout)} is idle: no longer waited for."
    )
    yield ""


def _view(view: View) -> Iterator[str]:
    yield from (f"### {view.name}", "", view.description, "")
    yield f"{nature(view)} Key: {', '.join(f'`{name}`' for name in view.key)}."
    yield from ("", "| Column | Type | Meaning |", "|---|---|---|")
    for column in view.columns:
        nullable = " or null" if column.nullable else ""
        yield f"| `{column.name}` | {column.type.value}{nullable} | {column.doc or '–'} |"
    yield ""


def nature(view: View) -> str:
    """Return how `view` is computed, when its rows come, and when its state and its rows end."""
    if isinstance(view, WindowView):
        window = view.window
        each = f", one each {span(window.slide)}" if window.slide != window.size else ""
        how = (
            f"Windows of {span(window.size)}{each}. A row comes with the window's first events and "
            f"is renewed with more; late ones correct it for {span(view.stream.allowed_lateness)}, "
            "then state ends."
        )
    elif isinstance(view, SessionView):
        how = (
            f"Sessions without a pause of more than {span(view.gap)}. A row comes at the latest "
            f"{_once_read(_delay(view) + view.gap, than='its last')}, and state ends with it."
        )
    elif isinstance(view, MilestoneView):
        how = (
            f"Each {view.every:,}th event in the order of time. A row comes at the latest "
            f"{_once_read(_delay(view))}; state ends {span(view.state_retention)} after a key's "
            "last event."
        )
    elif isinstance(view, RankedView):
        how = (
            f"The {view.top} with the most events of windows of {span(view.window.size)}. A row "
            f"comes at the latest {_once_read(_delay(view), than='the window')}, and state ends "
            "with it."
        )
    elif isinstance(view, AnomalyView):
        reach = view.lookback + timedelta(milliseconds=anomaly_store(view).span)
        how = (
            f"Windows of {span(view.window.size)}, held against those of the {span(view.lookback)} "
            f"before. A row comes at the latest {_once_read(_delay(view), than='the window')}; "
            f"state ends {span(reach)} after that."
        )
    elif isinstance(view, TotalsView):
        distinct = any(isinstance(one, CountDistinct) for one in view.measures.values())
        more = ", and by 16 bytes with each distinct value of one" if distinct else ""
        how = (
            "Totals of all events. A row is renewed as events of its key come; state does not end: "
            f"it grows with the keys{more}."
        )
    elif isinstance(view, JoinView):
        comes = _once_read(_delay(view) + view.settled_after)
        when = f"An event without a partner becomes a row, and its state ends, {comes}"
        if view.keeps is Keeps.PAIRS:
            when = (
                "A row comes with the later of its two events, however far time has come; state "
                f"ends {comes}"
            )
        how = (
            f"Events of `{view.left.name}` and `{view.right.name}` with the same `{view.on}`, the "
            f"second at most {span(view.before)} before and {span(view.after)} after the first. "
            f"{when}."
        )
    elif isinstance(view, ArrivalView):
        how = f"Flink SQL that answers each event as it arrives; {_state(view)}."
    elif isinstance(view, QueryView):
        how = f"Flink SQL. {_moment(view)}; {_state(view)}.{_never_held(view)}"
    kept = view.retention
    rows = "for good" if kept is None else f"{span(kept)} past their window"
    return f"{how} Rows are kept {rows}."


def _moment(view: QueryView) -> str:
    """Return when the rows of `view` come: with time, where it or what it reads goes by time."""
    read = plan(job_of(view), 1, (view.name,)).read_queries
    if any(re.search(r"\b(INTERVAL|DESCRIPTOR|SYSTEM_TIME)\b", one.sql) for one in read):
        delay = _delay(view) + view.settled_after
        return f"Rows come at the latest {_once_read(delay, than='them')}"
    return "A row is renewed with each event"


def _never_held(view: QueryView) -> str:
    """Return which events never hold, of streams whose events hold until the next."""
    queries = [one for one in job_of(view).views if isinstance(one, QueryView)]
    return "".join(
        f" An event of `{one.name}` that is {span(one.disorder + one.allowed_lateness)} or more "
        "older than the newest of its partition, whatever that one's key, may be late: then it "
        "never holds, nor after a rebuild."
        for one in view.streams
        if any(query.joins(one) for query in queries)
    )


def _state(view: QueryView) -> str:
    """Return when the state of `view` ends, and that of the views that it reads."""
    read = plan(job_of(view), 1, (view.name,)).read_queries
    ends = [
        ("state" if one.name == view.name else f"the state of `{one.name}`", one.state_retention)
        for one in reversed(read)
        if one.state_retention is not None
    ]
    if not ends:
        if isinstance(view, ArrivalView):
            return "it keeps none"
        return "state ends with its windows" + _outlasting(view)
    return ", ".join(f"{whose} ends {span(kept)} after a key's last change" for whose, kept in ends)


def _outlasting(view: QueryView) -> str:
    """Return what of its state no window of `view` ends."""
    if "FOR SYSTEM_TIME" in view.sql:
        # Flink has one time to live for all SQL of a job.
        others = [one for one in job_of(view).views if isinstance(one, QueryView)]
        kept = [one.state_retention for one in others if one.state_retention is not None]
        end = f"ends {span(max(kept))} after its last event" if kept else "stays"
        return f", but the newest version of each key {end}"
    if "MATCH_RECOGNIZE" in view.sql:
        return ", but a few bytes stay for each key that its pattern looks at"
    return ""


def _once_read(delay: timedelta, than: str = "") -> str:
    """Return when time has come `delay` past something, which is `than` where it is named."""
    newer = f"newer than {than}" if than else "newer"
    return f"once events {span(delay)} {newer} have been read from every partition not idle"


def _delay(view: View) -> timedelta:
    """Return how far the watermark that `view` goes by trails the newest event."""
    return max(one.disorder + one.allowed_lateness + one.pane for one in view.streams)


_UNITS = (
    ("year", timedelta(days=365)),
    ("day", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)


def span(duration: timedelta) -> str:
    """Return `duration`, whole seconds, in words such as "6 min 10 s" or "20 years"."""
    words, rest = [], duration
    for name, unit in _UNITS:
        count, rest = divmod(rest, unit)
        if count:
            words.append(f"{count} {name}{'s' if count > 1 and name in ('year', 'day') else ''}")
    return " ".join(words)
