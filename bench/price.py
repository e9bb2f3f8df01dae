"""What being right costs: the same run with exactly-once, lateness and dead letters off.

python -m bench.price --events 2000000
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import ten_seconds
from bench.series import OUTPUT, Filling, Point, run_points
from bench.showing import kept, show
from bench.variants import VARIANTS
from bench.workload import Workload
from deploy.console import run_alone
from deploy.settings import Settings
from jobs.views import Job

QUESTIONS = {
    "W1": (ten_seconds.COUNT_AND_SUM.name, "views and time per page and ten seconds"),
    "W2": (ten_seconds.EXACT_UNIQUES.name, "the same with exact visitors"),
}
_AT_LEAST_ONCE = {"delivery": "at-least-once"}
GUARDS: dict[str, tuple[Job, dict[str, str]]] = {
    "all of them": (ten_seconds.JOB, {}),
    "at least once": (ten_seconds.JOB, _AT_LEAST_ONCE),
    "no lateness": (VARIANTS["lateness_none"], {}),
    "no dead letters": (VARIANTS["no_dead_letters"], {}),
    "none of them": (VARIANTS["no_guards"], _AT_LEAST_ONCE),
}


def points(questions: tuple[str, ...], workload: Workload) -> list[Point]:
    """Return the runs: each question with each guard off, over one topic."""
    filling = Filling(workload)
    return [
        Point(f"{question}: {title}", guard, job, (view,), filling, options)
        for question in questions
        for view, title in (QUESTIONS[question],)
        for guard, (job, options) in GUARDS.items()
    ]


def main(
    events: Annotated[int, typer.Option(min=100_000)] = 4_000_000,
    question: Annotated[list[str] | None, typer.Option(help="W1 or W2; both by default.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the chart.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    At least once leaves out transactions and barriers that wait for each other. No lateness forgets
    a window at its end. No dead letters believes each record without a look at it.

    Example: python -m bench.price --events 2000000 --question W1
    """
    chosen = points(tuple(question or QUESTIONS), Workload(events=events))
    figures = kept(run_points(Settings(), chosen), output, "price")
    show(figures, output, "price", as_json=as_json)


if __name__ == "__main__":
    run_alone(main)
