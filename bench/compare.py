"""This project beside what one would pick instead, all over one topic in one run.

python -m bench.compare --events 2000000 --peers
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.expected import expected_rows
from bench.filling import Worlds
from bench.machine import Machine, keep_json
from bench.peers.chart import draw
from bench.peers.figures import Result, verdict
from bench.peers.page import page
from bench.peers.protocol import Contender, Rows, Source, Task
from bench.peers.runner import python_of, run
from bench.questions import QUESTIONS, Question, completed
from bench.steady import rates, whole
from bench.worlds import World
from deploy.console import (
    ERR,
    CommandError,
    print_json,
    print_table,
    run_alone,
)
from deploy.settings import PROJECT_ROOT, Settings
from schemas.topics import topic_names

OWN = ("kappa_views", "floor", "flink_sql")
PEERS = ("kafka_streams", "clickhouse", "spark", "pathway", "bytewax", "quix")


@dataclass(frozen=True)
class Limits:
    """Seconds: for one contender's reading, and after which no other is begun."""

    one: float
    whole: float


@dataclass(frozen=True)
class Round:
    """One question over the topics that its world was written to, with what the rows must be."""

    name: str
    question: Question
    world: World
    settings: Settings
    sources: tuple[Source, ...]
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
    events: int,
    limits: Limits,
    folder: Path,
) -> Iterator[Result]:
    """Put each question to each contender, one at a time; equal worlds are written once."""
    deadline = time.monotonic() + limits.whole
    worlds = Worlds(settings, topic_names(settings.kafka_client))
    try:
        for name in questions:
            it = _round(name, events, worlds)
            for module, short, contender in contenders(modules):
                ERR.print(f"{name}: {contender.title} …")
                one = min(limits.one, deadline - time.monotonic())
                # What another run wrote must not be taken for what this one does.
                worlds.clear()
                result = _measure(module, short, contender, it, one, folder)
                ERR.print(f"    {result.steady or 0:,} events/s; right: {result.verdict}")
                yield result
    finally:
        worlds.drop()


def _round(name: str, events: int, worlds: Worlds) -> Round:
    question = QUESTIONS[name]
    world = question.world(events)
    settings, sources = worlds.fill(world)
    expected = expected_rows(question.answer, world, question.tables)
    return Round(name, question, world, settings, sources, expected)


def _measure(
    module: str, name: str, contender: Contender, it: Round, seconds: float, folder: Path
) -> Result:
    note = contender.notes.get(it.name, "")
    who = (it.name, name, contender.title, contender.lacks, contender.settings, note)
    if it.name not in contender.answers:
        return Result(*who, verdict=f"no answer: {contender.cannot[it.name]}")
    if seconds <= 0:
        return Result(*who, verdict="not run: the time for all was up")
    if not python_of(contender).exists():
        return Result(*who, verdict="not installed: `make bench-peers` does that")
    task = _task(contender, it, folder / f"{it.name}-{name}")
    seen = run(it.settings, module, contender, task, seconds)
    figures: dict[str, Any] = rates(seen.marks, seen.cpu, seen.began)
    figures["peak_gigabytes"] = round(seen.peak_bytes / 1e9, 2)
    if said := seen.stopped or seen.error:
        return Result(*who, **figures, verdict=said)
    figures |= whole(seen.marks, seen.cpu, seen.complete, task.events)
    rows = task.read_rows()
    return Result(
        *who,
        **figures,
        result_seconds=round(seen.complete - seen.began, 1),
        rows=sum(map(len, rows.values())),
        verdict="; ".join(filter(None, (verdict(rows, it.expected), task.said))),
    )


def _task(contender: Contender, it: Round, folder: Path) -> Task:
    question = it.question
    return Task(
        question=it.name,
        mode=contender.mode,
        bootstrap=it.settings.kafka,
        registry=it.settings.registry,
        sources=it.sources,
        tables=completed(question.tables, it.expected),
        size_ms=question.size_ms,
        slide_ms=question.slide_ms,
        uniques=question.uniques,
        end_ms=it.world.end_ms,
        folder=str(folder.resolve()),
    )


COLUMNS = {
    "contender": "title",
    "events/s": "steady",
    "of": "steady_over",
    "for, s": "steady_seconds",
    "CPU s per million": "cpu_seconds_per_million",
    "whole, events/s": "whole",
    "whole, CPU s per million": "whole_cpu_seconds_per_million",
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


def report(results: Sequence[Result], events: int) -> None:
    """Print a table for each question, then what each contender leaves out."""
    for question in dict.fromkeys(result.question for result in results):
        title = f"{question}: {QUESTIONS[question].text}; {events:,} events"
        print_table(title, tuple(COLUMNS), table(results, question))
    leaves = dict.fromkeys((r.title, r.lacks, r.settings) for r in results)
    print_table("The contenders", ("", "leaves out", "settings"), list(leaves))
    notes = [(result.question, result.title, result.note) for result in results if result.note]
    print_table("Beside that", ("question", "contender", ""), notes)


def _keep(results: Sequence[Result], events: int, machine: Machine, output: Path) -> dict[str, Any]:
    """Write what is known as JSON and Markdown; return what is in the JSON."""
    document = keep_json(
        output / "compare.json",
        machine,
        events=events,
        results=[asdict(result) for result in results],
    )
    texts = {name: question.text for name, question in QUESTIONS.items()}
    (output / "compare.md").write_text(page(results, texts, events, str(machine)))
    return document


def main(
    events: Annotated[int, typer.Option(min=10_000)] = 2_000_000,
    peers: Annotated[bool, typer.Option("--peers", help="Also the optional ones.")] = False,
    only: Annotated[str, typer.Option(help="These modules of bench/peers, with commas.")] = "",
    question: Annotated[str, typer.Option(help=f"Of {', '.join(QUESTIONS)}, with commas.")] = "",
    seconds: Annotated[float, typer.Option(min=1, help="For one contender's reading.")] = 120.0,
    minutes: Annotated[
        float, typer.Option(min=1, help="After which no other is begun; no limit by default.")
    ] = math.inf,
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
    limits, machine = Limits(seconds, 60 * minutes), Machine.here()
    results: list[Result] = []
    for result in compare(Settings(), modules, questions, events, limits, output):
        results.append(result)
        # Whoever stops it keeps what is known so far.
        document = _keep(results, events, machine, output)
    draw(results, output / "compare.svg")
    if as_json:
        print_json(document)
        return
    report(results, events)
    ERR.print(f"Also in {output}/compare.json, compare.md and compare.svg.")


if __name__ == "__main__":
    run_alone(main)
