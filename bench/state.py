"""How much state a job of page views keeps while visitors come and go: flat where state ends.

python -m bench.state --events 10000000
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from bench.throughput import borrowed_namespace
from bench.workload import Workload, batches
from deploy.console import CommandError, print_json, print_table, progress_bar, run_alone
from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.page_views import JOB
from jobs.status import read_offsets
from jobs.submit import cancel, submit
from jobs.views import TotalsView
from schemas.producer import EventProducer
from schemas.registry import Registry
from schemas.streams import Stream

_DEADLINE_SECONDS = 900.0
_EVERY_SECONDS = 2.0
_MB = 1_000_000
_SETTLED_HOURS = 7.25
"""Event time after which state is compared: the first counts that anomalies are held against, kept
for seven hours and the lateness, have been forgotten by then."""
_ENDING = tuple(view.name for view in JOB.views if not isinstance(view, TotalsView))
"""The views whose state ends; totals of all time keep what they have counted."""


@dataclass(frozen=True)
class Churn:
    """Page views of visitors of whom each comes `visits` times within an hour, and never again.

    The events fill `hours` of event time; `pages` stay the same. They are sent in `steps`, each
    once a checkpoint has all before it: so no partition runs ahead of the others.
    """

    events: int = 10_000_000
    hours: float = 24.0
    pages: int = 50
    visits: int = 10
    steps: int = 100

    @property
    def at_once(self) -> int:
        """How many visitors there are at a time."""
        return max(1, round(self.events / self.hours / self.visits))

    @property
    def visitors(self) -> int:
        """How many visitors there are in all, about."""
        return self.events // self.visits

    @property
    def settled(self) -> int:
        """After how many events state is as large as it gets."""
        return round(self.events * _SETTLED_HOURS / self.hours)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield a batch a step, the events out of order; equal values give equal events."""
        per_second = self.events / (self.hours * 3600)
        plain = Workload(events=self.events, pages=self.pages, per_second=per_second)
        size = -(-self.events // self.steps)
        for number, batch in enumerate(batches(plain, size)):
            chance = np.random.default_rng(number)
            position = number * size + np.arange(len(batch))
            who = position // self.visits + chance.integers(0, self.at_once, len(batch))
            users = pa.array(np.char.add("visitor-", who.astype(str)))
            yield batch.set_column(batch.schema.get_field_index("user_id"), "user_id", users)


@dataclass(frozen=True)
class Sample:
    """One checkpoint: the events read before it, all state, and what of it was newly written."""

    events: int
    state_mb: float
    written_mb: float
    seconds: float


@dataclass(frozen=True)
class Operator:
    """The state of one of the job's tasks, at the median of both halves of what is compared."""

    task: str
    earlier_mb: float
    later_mb: float

    @property
    def growth(self) -> float:
        """The later half's state by the earlier half's."""
        return _growth(self.earlier_mb, self.later_mb)


@dataclass(frozen=True)
class Measured:
    """One run. `growth` is the later half's state by the earlier half's, 1 where it is flat."""

    events: int
    visitors: int
    per_second: float
    growth: float
    samples: tuple[Sample, ...]
    operators: tuple[Operator, ...]


def measure(settings: Settings, churn: Churn, views: tuple[str, ...]) -> Measured:
    """Run the job over a topic of its own that is filled step by step, and clean up."""
    with borrowed_namespace(settings) as there:
        return _measure_in(there, churn, views)


def _measure_in(there: Settings, churn: Churn, views: tuple[str, ...]) -> Measured:
    stream = JOB.within(there.namespace).stream
    job = submit(
        there, JOB.name, views=views, restore="none", options={"checkpoint_seconds": _EVERY_SECONDS}
    )
    began = time.monotonic()
    try:
        samples, tasks = _follow(there, stream, job.name, job.job_id, churn)
    finally:
        cancel(there, job.name)
    seconds = time.monotonic() - began
    earlier, later = _halves([sample.events for sample in samples], churn.settled)
    sizes = [sample.state_mb for sample in samples]
    return Measured(
        events=churn.events,
        visitors=churn.visitors,
        per_second=round(churn.events / seconds),
        growth=_growth(_middle(sizes, earlier), _middle(sizes, later)),
        samples=tuple(samples),
        operators=_operators(tasks, earlier, later),
    )


def _follow(
    settings: Settings, stream: Stream, name: str, job_id: str, churn: Churn
) -> tuple[list[Sample], list[dict[str, float]]]:
    """Send step by step; return of each the sample and the tasks' megabytes."""
    cluster = Cluster(*settings.flink_clusters)
    names = {v["id"]: v["name"] for v in cluster.get(f"/jobs/{job_id}")["vertices"]}
    samples: list[Sample] = []
    tasks: list[dict[str, float]] = []
    with (
        Registry(**settings.registry_access) as registry,
        EventProducer(settings.kafka_client, registry, stream) as producer,
        progress_bar(unit="events") as progress,
    ):
        bar = progress.add_task("Running the job", total=churn.events)
        for batch in churn.batches():
            producer.send_batch(batch)
            producer.flush()
            _await_checkpoint(settings, f"kappa-{name}", stream, producer.sent)
            newest = cluster.get(f"/jobs/{job_id}/checkpoints")["latest"]["completed"]
            samples.append(_sample(producer.sent, newest))
            tasks.append(_by_task(cluster, job_id, newest["id"], names))
            progress.update(bar, completed=producer.sent)
    return samples, tasks


def _await_checkpoint(settings: Settings, group: str, stream: Stream, events: int) -> None:
    """Wait until a checkpoint has all `events` that were sent."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while sum(read_offsets(settings, group, stream.topic).values()) < events:
        if time.monotonic() > deadline:
            raise CommandError(f"{group}: no checkpoint has {events:,} events; see kappa status.")
        time.sleep(0.5)


def _sample(read: int, checkpoint: Mapping[str, Any]) -> Sample:
    return Sample(
        events=read,
        state_mb=round(checkpoint["state_size"] / _MB, 2),
        written_mb=round(checkpoint["checkpointed_size"] / _MB, 2),
        seconds=round(checkpoint["end_to_end_duration"] / 1000, 2),
    )


def _by_task(
    cluster: Cluster, job_id: str, checkpoint: int, names: Mapping[str, str]
) -> dict[str, float]:
    found = cluster.get(f"/jobs/{job_id}/checkpoints/details/{checkpoint}")["tasks"]
    return {names[task]: size["state_size"] / _MB for task, size in found.items()}


def _halves(read: list[int], settled: int) -> tuple[slice, slice]:
    """Return the samples of both halves of what is compared, from `settled` events on."""
    first = sum(count < settled for count in read)
    if len(read) - first < 4:
        raise CommandError(f"{len(read) - first} looks tell nothing; take more --steps.")
    middle = (first + len(read)) // 2
    return slice(first, middle), slice(middle, len(read))


def _growth(earlier: float, later: float) -> float:
    return round(later / max(earlier, 1e-9), 3)


def _middle(sizes: list[float], part: slice) -> float:
    return median(sizes[part])


def _operators(tasks: list[dict[str, float]], earlier: slice, later: slice) -> tuple[Operator, ...]:
    found = []
    for name in tasks[-1]:
        sizes = [one.get(name, 0.0) for one in tasks]
        found.append(
            Operator(name, round(_middle(sizes, earlier), 3), round(_middle(sizes, later), 3))
        )
    return tuple(sorted(found, key=lambda operator: -operator.later_mb))


def _written_by(task: str) -> str:
    """Return the views that `task` writes, and how its name begins."""
    views = dict.fromkeys(re.findall(r"(\w+)_topic\b", task))
    return ", ".join([*views, task[:60]])


def _thinned(samples: tuple[Sample, ...], rows: int = 24) -> list[Sample]:
    step = max(1, len(samples) // rows)
    return [*samples[:-1:step], samples[-1]]


def main(
    events: Annotated[int, typer.Option(min=100_000)] = Churn.events,
    hours: Annotated[float, typer.Option(min=10, help="Of event time, in all.")] = Churn.hours,
    pages: Annotated[int, typer.Option(min=1)] = Churn.pages,
    visits: Annotated[int, typer.Option(min=1, help="Views of each visitor.")] = Churn.visits,
    steps: Annotated[int, typer.Option(min=20, help="Looks at the state.")] = Churn.steps,
    view: Annotated[
        list[str] | None, typer.Option(help="This view and not all whose state ends; repeat.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure the state of the job of page views on the running stack (`kappa up` first).

    Example: python -m bench.state --events 1000000
    """
    found = measure(Settings(), Churn(events, hours, pages, visits, steps), tuple(view or _ENDING))
    if as_json:
        print_json(asdict(found))
        return
    shown = [tuple(asdict(sample).values()) for sample in _thinned(found.samples)]
    columns = ("events read", "state, MB", "newly written, MB", "checkpoint, s")
    print_table("State at checkpoints", columns, shown)
    large = [operator for operator in found.operators if operator.later_mb > 0.01]
    tasks = [(_written_by(o.task), o.earlier_mb, o.later_mb, o.growth) for o in large]
    parts = ("task", "earlier half, MB", "later half, MB", "growth")
    print_table("By task, medians", parts, tasks)
    facts = replace(found, samples=(), operators=())
    rows = [(n.replace("_", " "), v) for n, v in asdict(facts).items() if v != ()]
    print_table("", ("", "measured"), rows)


if __name__ == "__main__":
    run_alone(main)
