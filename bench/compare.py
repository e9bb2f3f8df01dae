"""This project beside what one would pick instead, all over one topic in one run.

python -m bench.compare --events 2000000 --peers
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.expected import expected_rows
from bench.filling import Worlds
from bench.machine import Machine, keep_json
from bench.peers.chart import draw
from bench.peers.figures import (
    COLUMNS,
    FAILED,
    RIGHT,
    STOPPED,
    WRONG,
    Result,
    ranked,
    summary,
    verdict,
)
from bench.peers.page import page
from bench.peers.protocol import Contender, Rows, Source, Task
from bench.peers.runner import is_installed, run
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
from jobs.cluster import LIVE_STATES, Cluster
from schemas.topics import topic_names

OWN = ("kappa_views", "floor", "flink_sql")
_LEAST_SECONDS = 120.0
_SLOWEST = 10_000
"""Events a second: who is slower is of no use, and stopped."""
_SAID = 300
PEERS = ("kafka_streams", "clickhouse", "spark", "pathway", "bytewax", "quix")


@dataclass(frozen=True)
class Asked:
    """What a comparison is about. Seconds are those of one run's reading and of all runs.

    When those are up, no other is begun. `folder` has one for each contender's answer.
    """

    modules: tuple[str, ...]
    questions: tuple[str, ...]
    events: int
    repeat: int
    seconds: float
    seconds_in_all: float
    folder: Path


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


def compare(settings: Settings, asked: Asked) -> Iterator[Result]:
    """Put each question to each contender, one at a time; equal worlds are written once."""
    deadline = time.monotonic() + asked.seconds_in_all
    worlds = Worlds(settings, topic_names(settings.kafka_client))
    chosen = list(contenders(asked.modules))
    try:
        for name in asked.questions:
            it = _round(name, asked.events, worlds)
            for turn in range(asked.repeat):
                # Whoever runs after whom is another each time.
                first = turn % len(chosen)
                for module, short, contender in chosen[first:] + chosen[:first]:
                    ERR.print(f"{name}: {contender.title} …")
                    seconds = min(asked.seconds, deadline - time.monotonic())
                    who = _who(name, short, contender)
                    result = _tried(who, module, contender, it, worlds, seconds, asked.folder)
                    ERR.print(f"    {result.steady or 0:,} events/s; right: {result.verdict}")
                    yield result
    finally:
        _dropped(worlds)


def _who(question: str, name: str, contender: Contender) -> Result:
    note = contender.notes.get(question, "")
    return Result(question, name, contender.title, contender.lacks, contender.settings, note)


def _tried(
    who: Result,
    module: str,
    contender: Contender,
    it: Round | str,
    worlds: Worlds,
    seconds: float,
    folder: Path,
) -> Result:
    """Return what a run came to, if only what went wrong: others are still to run."""
    if who.question not in contender.answers:
        return replace(who, verdict=contender.no_answer(who.question))
    if isinstance(it, str):
        return replace(who, verdict=f"not run: {it}")
    if seconds <= 0:
        return replace(who, verdict="not run: the time for all was up")
    if not is_installed(contender):
        return replace(who, verdict="not installed: `make bench-peers` does that")
    try:
        # What another run wrote must not be taken for what this one does.
        worlds.clear()
        return _measure(who, module, contender, it, seconds, folder)
    except Exception as error:
        return replace(who, outcome=FAILED, verdict=_said(error))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SAID]


def _dropped(worlds: Worlds) -> None:
    try:
        worlds.drop()
    except Exception as error:
        ERR.print(f"The comparison's topics stay: {_said(error)}")


def _round(name: str, events: int, worlds: Worlds) -> Round | str:
    """Return what the question needs, or why it can't be put to anybody."""
    question = QUESTIONS[name]
    try:
        world = question.world(events)
        settings, sources = worlds.fill(world)
        expected = expected_rows(question.answer, world, question.tables)
    except Exception as error:
        return _said(error)
    return Round(name, question, world, settings, sources, expected)


def _measure(
    who: Result, module: str, contender: Contender, it: Round, seconds: float, folder: Path
) -> Result:
    task = _task(contender, it, folder / f"{it.name}-{who.contender}")
    seen = run(it.settings, module, contender, task, seconds)
    figures: dict[str, Any] = rates(seen.marks, seen.cpu, seen.began)
    figures["peak_gigabytes"] = round(seen.peak_bytes / 1e9, 2)
    if seen.stopped or seen.error:
        outcome = FAILED if seen.error else STOPPED
        return replace(who, **figures, outcome=outcome, verdict=seen.error or seen.stopped)
    rows = task.read_rows()
    said = verdict(rows, it.expected)
    figures |= whole(seen.marks, seen.cpu, seen.complete, task.events)
    return replace(
        who,
        **figures,
        outcome=RIGHT if said == "yes" else WRONG,
        result_seconds=round(seen.complete - seen.began, 1),
        rows=sum(map(len, rows.values())),
        verdict="; ".join(filter(None, (said, task.said))),
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


def table(results: Sequence[Result], question: str) -> list[list[Any]]:
    """Return the rows of a question's table, the best first."""
    own = ranked([result for result in results if result.question == question])
    return [[result.title, *(value(result) for value in COLUMNS.values())] for result in own]


def report(results: Sequence[Result], events: int) -> None:
    """Print a table for each question, then what each contender leaves out."""
    for question in dict.fromkeys(result.question for result in results):
        title = f"{question}: {QUESTIONS[question].text}; {events:,} events"
        print_table(title, ("contender", *COLUMNS), table(results, question))
    leaves = dict.fromkeys((r.title, r.lacks, r.settings) for r in results)
    print_table("The contenders", ("", "leaves out", "settings"), list(leaves))
    notes = [(result.question, result.title, result.note) for result in results if result.note]
    print_table("Beside that", ("question", "contender", ""), notes)


def _keep(results: Sequence[Result], events: int, machine: Machine, output: Path) -> dict[str, Any]:
    """Write what is known: all runs as JSON, their medians as Markdown; return the JSON's."""
    document = keep_json(
        output / "compare.json",
        machine,
        events=events,
        results=[asdict(result) for result in results],
    )
    texts = {name: question.text for name, question in QUESTIONS.items()}
    (output / "compare.md").write_text(page(summary(results), texts, events, str(machine)))
    return document


def _require_idle(settings: Settings) -> None:
    """Raise where jobs run: each new TaskManager would restart them, beside what is measured."""
    jobs = Cluster(settings.flink).jobs()
    if running := ", ".join(job.name for job in jobs if job.state in LIVE_STATES):
        raise CommandError(f"{running} runs here: `kappa cancel` what runs before a comparison.")


def main(
    events: Annotated[int, typer.Option(min=10_000)] = 2_000_000,
    peers: Annotated[bool, typer.Option("--peers", help="Also the optional ones.")] = False,
    only: Annotated[str, typer.Option(help="These modules of bench/peers, with commas.")] = "",
    question: Annotated[str, typer.Option(help=f"Of {', '.join(QUESTIONS)}, with commas.")] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Runs of each, of which the median.")] = 1,
    seconds: Annotated[
        float | None,
        typer.Option(min=1, help="For one's reading; by default enough for 10,000 a second."),
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=1, help="After which no other is begun; no limit by default.")
    ] = math.inf,
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the charts.")] = (
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
    _require_idle(Settings())
    one = seconds or max(_LEAST_SECONDS, events / _SLOWEST)
    asked = Asked(modules, questions, events, repeat, one, 60 * minutes, output)
    results, machine = [], Machine.here()
    for result in compare(Settings(), asked):
        results.append(result)
        # Whoever stops it keeps what is known so far.
        document = _keep(results, events, machine, output)
        own = [one for one in summary(results) if one.question == result.question]
        draw(own, output / f"compare-{result.question}.svg")
    if as_json:
        print_json(document)
        return
    report(summary(results), events)
    ERR.print(f"Also in {output}/compare.json, compare.md and a chart for each question.")


if __name__ == "__main__":
    run_alone(main)
