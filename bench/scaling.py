"""How speed and state go with parallelism, keys, lateness, hot keys, width and number of views.

python -m bench.scaling --events 2000000 --only keys
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench import ten_seconds
from bench.series import OUTPUT, Filling, Point, run_points
from bench.showing import kept, show
from bench.variants import MINUTES, SEVERAL, VARIANTS
from bench.width import NARROW, WIDE, widened
from bench.workload import Workload
from deploy.console import CommandError, run_alone
from deploy.settings import Settings
from schemas.streams import PAGE_VIEWS

_W1, _W2 = (ten_seconds.COUNT_AND_SUM.name,), (ten_seconds.EXACT_UNIQUES.name,)
_JOB = ten_seconds.JOB
KEYS = (10, 1_000, 100_000, 1_000_000, 10_000_000)
_DENSE = 40_000.0
"""Events per second of event time where the number of keys counts: 2.4 million a minute."""


def parallelism(plain: Workload) -> Iterator[Point]:
    """One and two slots, for the easy question and the hard one."""
    for views, what in ((_W1, "count and sum"), (_W2, "exact uniques")):
        for slots in (1, 2):
            label = f"{what}, {slots} slot{'s'[: slots - 1]}"
            yield Point("Parallelism", label, _JOB, views, Filling(plain), {"parallelism": slots})


def views(plain: Workload) -> Iterator[Point]:
    """One job with one, three and seven views by different keys and windows."""
    job = VARIANTS["several"]
    for count in (1, 3, len(SEVERAL)):
        names = tuple(view.name for view in SEVERAL[:count])
        label = f"{count} view{'s'[: count - 1]}"
        yield Point("Views in one job", label, job, names, Filling(plain))


def state(plain: Workload) -> Iterator[Point]:
    """Exact uniques kept for longer and longer: the allowed lateness is how long."""
    # Of 40 minutes, so that what is kept for 20 is more than what is kept for five.
    plain = replace(plain, per_second=plain.events / 2_400)
    for name, label in (
        ("lateness_none", "kept 0 min past the window"),
        ("lateness_1_minute", "1 min"),
        ("ten_seconds", "5 min"),
        ("lateness_20_minutes", "20 min"),
    ):
        yield Point("State, exact uniques", label, VARIANTS[name], _W2, Filling(plain))


def hot(plain: Workload) -> Iterator[Point]:
    """Half of all events for one page, which is the view's key, or by one user, the topic's."""
    for label, change in (
        ("Zipf's law", {}),
        ("half of all for one page", {"hot_page": 0.5}),
        ("half of all in one partition", {"hot_user": 0.5}),
    ):
        filling = Filling(replace(plain, **change))  # type: ignore[arg-type]
        yield Point("A hot key, count and sum", label, _JOB, _W1, filling)


def width(plain: Workload) -> Iterator[Point]:
    """The same views over records of 4, 11 and 51 fields."""
    title = "Width of records, count and sum"
    yield Point(title, "11 fields", _JOB, _W1, Filling(plain))
    yield Point(title, "4 fields", VARIANTS["narrow"], _W1, Filling(plain, NARROW))
    yield Point(title, "51 fields", VARIANTS["wide"], _W1, Filling(plain, WIDE, widened))


def keys(plain: Workload) -> Iterator[Point]:
    """Ten keys to ten million, all as likely, in windows of a minute.

    Of a million a full window has nine in ten, of ten million two in ten; each figure says how
    many it had.
    """
    job = VARIANTS["minutes"]
    for count in KEYS:
        filling = Filling(replace(plain, pages=count, skew=0.0, per_second=_DENSE), PAGE_VIEWS)
        yield Point("Keys, count and sum", f"{count:,}", job, (MINUTES.name,), filling)


SERIES = {
    "parallelism": parallelism,
    "views": views,
    "state": state,
    "hot": hot,
    "width": width,
    "keys": keys,
}


def points(names: Sequence[str], plain: Workload) -> list[Point]:
    """Return the points of the series of those names, in the order in which they are shown."""
    return [point for name in names for point in SERIES[name](plain)]


def by_topic(shown: Sequence[Point]) -> list[Point]:
    """Return the points in an order in which those over equal topics stand together."""
    places = {filling: n for n, filling in enumerate(dict.fromkeys(p.filling for p in shown))}
    return sorted(shown, key=lambda point: places[point.filling])


def main(
    events: Annotated[int, typer.Option(min=100_000)] = 4_000_000,
    only: Annotated[str, typer.Option(help=f"Of {', '.join(SERIES)}, with commas.")] = "",
    output: Annotated[Path, typer.Option(help="Folder of the JSON and the chart.")] = OUTPUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first).

    Series that are left out keep the figures of the run before.

    Example: python -m bench.scaling --events 2000000 --only keys,hot
    """
    names = tuple(filter(None, only.split(","))) or tuple(SERIES)
    if unknown := sorted({*names} - SERIES.keys()):
        raise CommandError(f"There is no {', '.join(unknown)}; see --help.")
    shown = points(names, Workload(events=events))
    places = {(point.series, point.label): place for place, point in enumerate(shown)}
    figures = kept(run_points(Settings(), by_topic(shown)), output, "scaling")
    figures.sort(key=lambda figure: places[figure.series, figure.label])
    show(figures, output, "scaling", as_json=as_json)


if __name__ == "__main__":
    run_alone(main)
