"""The catalogue of streams and views as a page in Markdown, from their declarations. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobs.catalogue import job_of
from jobs.plan import plan
from jobs.views import ArrivalView, Job, QueryView, View, WindowView
from schemas.streams import Stream


def page(jobs: Iterable[Job]) -> str:
    """Return the page: a section a job, with its streams and its views."""
    return "\n".join(_lines(tuple(jobs))) + "\n"


def _lines(jobs: tuple[Job, ...]) -> Iterator[str]:
    yield "# Views"
    yield ""
    yield "Written by `kappa views --markdown`. Each job runs with `kappa submit JOB`;"
    yield "`kappa generate JOB` sends it made-up events."
    for job in jobs:
        yield from ("", f"## {job.name}", "")
        for stream in job.streams:
            yield from _stream(stream)
        for view in job.views:
            yield from _view(view)


def _stream(stream: Stream) -> Iterator[str]:
    file = stream.schema_file or f"{stream.name}.avsc"
    disorder, lateness = (
        f"{d.total_seconds():g} s" for d in (stream.disorder, stream.allowed_lateness)
    )
    yield f"Stream [`{stream.name}`](../schemas/{file}): {stream.description} Disorder {disorder},"
    yield f"allowed lateness {lateness}."
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
        size, slide = view.window.size.total_seconds(), view.window.slide.total_seconds()
        each = f", one each {slide:g} s" if slide != size else ""
        lateness = view.stream.allowed_lateness.total_seconds()
        how = (
            f"Windows of {size:g} s{each}; late events correct them for {lateness:g} s, then "
            "their state ends."
        )
    elif isinstance(view, ArrivalView):
        how = f"Answers each event as it arrives; {_state(view)}."
    elif isinstance(view, QueryView):
        how = (
            f"Flink SQL over events that others have passed by {_delay(view):g} s; {_state(view)}."
        )
    kept = view.retention
    rows = "for good" if kept is None else f"{kept.days:,} days past their window"
    return f"{how} Rows are kept {rows}."


def _state(view: QueryView) -> str:
    """Return when the state of `view` ends, and that of the views that it reads."""
    read = plan(job_of(view), 1, (view.name,)).read_queries
    ends = [
        ("its state" if one.name == view.name else f"that of `{one.name}`", one.state_retention)
        for one in reversed(read)
        if one.state_retention is not None
    ]
    if not ends:
        return (
            "it keeps none" if isinstance(view, ArrivalView) else "its state ends with its windows"
        )
    return ", ".join(
        f"{whose} ends {kept.days:,} days after a key's last change" for whose, kept in ends
    )


def _delay(view: QueryView) -> float:
    """Return how far, in seconds, the watermark that `view` goes by trails the newest event."""
    return max(
        (one.disorder + one.allowed_lateness + one.pane).total_seconds() for one in view.streams
    )
