"""This project beside what one would pick instead, all over one topic in one run.

python -m bench.compare --events 2000000 --peers
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.answers import Rows, expected_rows
from bench.peers.chart import draw
from bench.peers.figures import Result, verdict
from bench.peers.protocol import Contender, Task, read_rows
from bench.peers.runner import python_of, run
from bench.steady import rates
from bench.throughput import CASES, fill_topic
from bench.workload import Workload
from deploy.console import ERR, CommandError, json_value, print_json, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.views import Job, WindowView
from schemas.topics import end_offsets
from udfs.measures import CountDistinct

QUESTIONS = {
    "W1": ("ten_seconds", "views and time per page and 10 seconds"),
    "W2": ("ten_seconds_uniques", "W1 with exact visitors"),
    "W3": ("five_minutes", "W1 per page and 5 minutes, each minute anew"),
}
OWN = ("kappa_views", "floor", "flink_sql")
PEERS = ("clickhouse", "spark", "pathway", "bytewax", "quix")
NOT_MEASURED = {
    "Kafka Streams": (
        "not measured: a topology's functions are Java classes of one's own, which this project "
        "does not have; called back in Python they would not be Kafka Streams' speed"
    )
}
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Limits:
    """Seconds: for one contender's reading, and after which no other is begun."""

    one: float
    whole: float


@dataclass(frozen=True)
class Round:
    """One question over the topic, with what the rows must be."""

    question: str
    view: WindowView
    workload: Workload
    ends: dict[int, int]
    expected: Rows


def contenders(modules: Sequence[str]) -> Iterator[tuple[str, str, Contender]]:
    """Yield (module, name, contender)."""
    for module in modules:
        found: dict[str, Contender] = importlib.import_module(f"bench.peers.{module}").CONTENDERS
        for name, contender in found.items():
            yield module, name, contender


def compare(
    settings: Settings,
    modules: Sequence[str],
    questions: Sequence[str],
    workload: Workload,
    limits: Limits,
    folder: Path,
) -> list[Result]:
    """Fill one topic and put each question to each contender, one at a time."""
    deadline = time.monotonic() + limits.whole
    there = settings.model_copy(update={"namespace": f"c{uuid.uuid4().hex[:6]}"})
    cases = {question: CASES[QUESTIONS[question][0]] for question in questions}
    job: Job = next(iter(cases.values())).job.within(there.namespace)
    ERR.print(f"Filling {job.stream.topic} with {workload.events:,} events …")
    fill_topic(there, job, workload)
    ends = end_offsets(settings.kafka_client, job.stream.topic)
    results = []
    for question, case in cases.items():
        view = case.view_in(there.namespace)
        it = Round(question, view, workload, ends, expected_rows(view, workload))
        for module, name, contender in contenders(modules):
            if question in contender.answers:
                ERR.print(f"{question}: {contender.title} …")
                one = min(limits.one, deadline - time.monotonic())
                results.append(_measure(there, module, name, contender, it, one, folder))
                ERR.print(f"    {results[-1].steady or 0:,} events/s; right: {results[-1].verdict}")
    return results


def _measure(
    settings: Settings,
    module: str,
    name: str,
    contender: Contender,
    it: Round,
    seconds: float,
    folder: Path,
) -> Result:
    who = (it.question, name, contender.title, contender.lacks)
    if seconds <= 0:
        return Result(*who, verdict="not run: the time for all was up")
    if not python_of(contender).exists():
        return Result(*who, verdict="not installed: `make bench-peers` does that")
    task = _task(settings, contender, it, folder / f"{it.question}-{name}")
    seen = run(settings, module, contender, task, seconds)
    figures: dict[str, Any] = rates(seen.marks, seen.cpu, seen.began)
    figures["peak_gigabytes"] = round(seen.peak_bytes / 1e9, 2)
    if seen.error:
        return Result(*who, **figures, verdict=seen.error)
    rows = read_rows(Path(task.folder), task.measures)
    return Result(
        *who,
        **figures,
        result_seconds=round(seen.ended - seen.began, 1),
        rows=len(rows),
        verdict=verdict(rows, it.expected),
    )


def _task(settings: Settings, contender: Contender, it: Round, folder: Path) -> Task:
    stream, measures = it.view.stream, it.view.measures.values()
    return Task(
        question=it.question,
        view=it.view.name,
        mode=contender.mode,
        bootstrap=settings.kafka,
        registry=settings.registry,
        topic=stream.topic,
        ends={str(partition): end for partition, end in it.ends.items()},
        events=it.workload.events,
        schema=stream.schema,
        size_ms=it.view.window.size // _MILLISECOND,
        slide_ms=it.view.window.slide // _MILLISECOND,
        uniques=any(isinstance(measure, CountDistinct) for measure in measures),
        disorder_ms=stream.disorder // _MILLISECOND,
        lateness_ms=stream.allowed_lateness // _MILLISECOND,
        folder=str(folder.resolve()),
    )


COLUMNS = {
    "contender": "title",
    "events/s": "steady",
    "of": "steady_over",
    "CPU s per million": "cpu_seconds_per_million",
    "peak, GB": "peak_gigabytes",
    "start-up, s": "start_up_seconds",
    "to last row, s": "result_seconds",
    "right": "verdict",
}


def table(results: Sequence[Result], question: str) -> list[list[Any]]:
    """Return the rows of a question's table, the fastest first."""
    own = [result for result in results if result.question == question]
    own.sort(key=lambda result: -(result.steady or 0))
    return [[getattr(result, field) for field in COLUMNS.values()] for result in own]


def report(results: Sequence[Result], workload: Workload) -> None:
    """Print a table for each question, then what each contender leaves out."""
    for question in dict.fromkeys(result.question for result in results):
        title = f"{question}: {QUESTIONS[question][1]}; {workload.events:,} events"
        print_table(title, tuple(COLUMNS), table(results, question))
    leaves = {result.title: result.lacks for result in results} | NOT_MEASURED
    print_table("What each leaves out", ("contender", "of these"), list(leaves.items()))


def main(
    events: Annotated[int, typer.Option(min=10_000)] = 4_000_000,
    peers: Annotated[bool, typer.Option("--peers", help="Also the optional ones.")] = False,
    only: Annotated[str, typer.Option(help="These modules of bench/peers, with commas.")] = "",
    question: Annotated[str, typer.Option(help=f"Of {', '.join(QUESTIONS)}, with commas.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="For one contender's reading.")] = 75.0,
    minutes: Annotated[float, typer.Option(min=0, help="After which no other is begun.")] = 14.0,
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the chart.")] = (
        PROJECT_ROOT / "build" / "bench"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Compare on the running embedded stack (`kappa up` first).

    Example: python -m bench.compare --events 2000000 --only kappa_views,floor --question W1
    """
    modules = tuple(filter(None, only.split(","))) or OWN + (PEERS if peers else ())
    questions = tuple(filter(None, question.split(","))) or tuple(QUESTIONS)
    if unknown := [*({*modules} - {*OWN, *PEERS}), *({*questions} - QUESTIONS.keys())]:
        raise CommandError(f"There is no {', '.join(unknown)}; see --help.")
    workload = Workload(events=events)
    results = compare(
        Settings(), modules, questions, workload, Limits(seconds, 60 * minutes), output
    )
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    document = {
        "machine": machine,
        "events": events,
        "results": [asdict(result) for result in results],
        "not_measured": NOT_MEASURED,
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.json").write_text(json.dumps(json_value(document), indent=2) + "\n")
    draw(results, output / "compare.svg")
    if as_json:
        print_json(document)
        return
    report(results, workload)
    ERR.print(f"Also in {output}/compare.json and compare.svg.")


if __name__ == "__main__":
    run_alone(main)
