"""The catalogue of streams and views as a page in Markdown, from their declarations. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    yield f"{_kind(view)} Key: {', '.join(f'`{name}`' for name in view.key)}."
    yield from ("", "| Column | Type | Meaning |", "|---|---|---|")
    for column in view.columns:
        nullable = " or null" if column.nullable else ""
        yield f"| `{column.name}` | {column.type.value}{nullable} | {column.doc or '–'} |"
    yield ""


def _kind(view: View) -> str:
    match view:
        case WindowView(window=window):
            size, slide = window.size.total_seconds(), window.slide.total_seconds()
            each = f", one each {slide:g} s" if slide != size else ""
            lateness = view.stream.allowed_lateness.total_seconds()
            return (
                f"Windows of {size:g} s{each}; late events correct them for {lateness:g} s, then "
                "their state ends."
            )
        case ArrivalView(state_retention=None):
            return "Answers each event as it arrives and keeps no state of its own."
        case ArrivalView(state_retention=kept) if kept is not None:
            return (
                f"Answers each event as it arrives; state is kept for {kept.days:,} days after a "
                "key's last change."
            )
        case QueryView(state_retention=None):
            return "Flink SQL; its state ends with its windows."
        case QueryView(state_retention=kept) if kept is not None:
            return f"Flink SQL; state is kept for {kept.days:,} days after a key's last change."
    return ""
