"""Page views by the million: seeded, vectorised, out of order as real ones are, into Kafka.

python -m bench.workload --events 4000000
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from schemas.producer import EventProducer
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS, Stream
from schemas.topics import end_offsets
from schemas.values import epoch_ms

BATCH_EVENTS = 50_000
START = datetime(2026, 1, 5, 8, tzinfo=UTC)

_STATUSES = pa.array([200, 304, 404, 500, 503], pa.int32())
_STATUS_SHARES = (0.92, 0.03, 0.035, 0.01, 0.005)
_METHODS = pa.array(["GET", "POST"])
_METHOD_SHARES = (0.97, 0.03)
_COUNTRIES = pa.array(["US", "DE", "GB", "IN", "FR", "BR", "JP", "NL", "PL", None])
_COUNTRY_SHARES = (0.27, 0.14, 0.11, 0.11, 0.09, 0.08, 0.07, 0.06, 0.05, 0.02)
_REFERRERS = pa.array(
    [None, "https://www.google.com/", "https://duckduckgo.com/", "https://news.ycombinator.com/"]
)
_REFERRER_SHARES = (0.55, 0.3, 0.1, 0.05)
_USER_AGENTS = pa.array(
    [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537",
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1.15 Version/18.1 Safari/605",
        "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    ]
)
_USER_AGENT_SHARES = (0.4, 0.2, 0.1, 0.25, 0.05)


@dataclass(frozen=True)
class Workload:
    """What to generate; two equal workloads give equal events.

    An event happens up to `disorder` before its place in the sequence says, most of them by
    far less. So no partition ever holds one that trails its newest by more than `disorder`.
    `per_second` counts events per second of event time; `skew` is the exponent of the Zipf law
    by which pages are picked, 0 for all alike. A share of `hot_page` of the events are for the
    first page and one of `hot_user` by the first user, whoever else they would have been of.
    """

    events: int = 4_000_000
    pages: int = 1_000
    users: int = 1_000_000
    per_second: float = 5_000.0
    skew: float = 1.0
    seed: int = 1
    start_ms: int = epoch_ms(START)
    disorder: timedelta = timedelta(seconds=8)
    hot_page: float = 0.0
    hot_user: float = 0.0


@dataclass(frozen=True)
class Filled:
    """What a run put into Kafka."""

    events: int
    seconds: float
    end_offsets: dict[int, int]
    began: float
    """The monotonic clock when the first event was due."""

    @property
    def per_second(self) -> float:
        """Events written per second of the clock, delivery included."""
        return self.events / max(self.seconds, 1e-9)


def batches(workload: Workload, batch_events: int = BATCH_EVENTS) -> Iterator[pa.RecordBatch]:
    """Yield the events of `workload`; the size of a batch is part of what seeds them."""
    ranks = np.arange(1, workload.pages + 1, dtype=np.float64)
    weights = ranks**-workload.skew
    page_cdf = np.cumsum(weights / weights.sum())
    names = pa.array([f"/articles/{rank:05d}" for rank in range(1, workload.pages + 1)])
    for number, first in enumerate(range(0, workload.events, batch_events)):
        rng = np.random.default_rng((workload.seed, number))
        sequence = np.arange(first, min(first + batch_events, workload.events), dtype=np.int64)
        yield _batch(workload, rng, sequence, page_cdf, names)


def _batch(
    workload: Workload,
    rng: np.random.Generator,
    sequence: np.ndarray[Any, Any],
    page_cdf: np.ndarray[Any, Any],
    page_names: pa.Array,
) -> pa.RecordBatch:
    n = len(sequence)
    pages = np.minimum(np.searchsorted(page_cdf, rng.random(n)), workload.pages - 1)
    status = _pick(rng, _STATUSES, _STATUS_SHARES, n)
    # Chance of its own, so that the rest of the events is the same with and without.
    heat = np.random.default_rng((workload.seed, int(sequence[0]), 1))
    pages[heat.random(n) < workload.hot_page] = 0
    is_hot = heat.random(n) < workload.hot_user
    durations = rng.lognormal(9.0, 1.2, n).astype(np.int64) % 3_600_000
    sizes = rng.lognormal(9.5, 1.0, n).astype(np.int64)
    columns = {
        "event_id": _labelled(f"{workload.seed}-", sequence),
        "event_time": pa.array(_times(workload, rng, sequence)),
        "user_id": _labelled("user-", np.where(is_hot, 0, rng.integers(0, workload.users, n))),
        "page_id": page_names.take(pa.array(pages)),
        "duration_ms": pa.array(durations, mask=rng.random(n) < 0.1),
        "status": status,
        "method": _pick(rng, _METHODS, _METHOD_SHARES, n),
        "bytes_sent": pc.if_else(pc.equal(status, 304), None, pa.array(sizes)),
        "country": _pick(rng, _COUNTRIES, _COUNTRY_SHARES, n),
        "referrer": _pick(rng, _REFERRERS, _REFERRER_SHARES, n),
        "user_agent": _pick(rng, _USER_AGENTS, _USER_AGENT_SHARES, n),
    }
    return pa.RecordBatch.from_pydict(columns)


def _times(
    workload: Workload, rng: np.random.Generator, sequence: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    bound_ms = workload.disorder / timedelta(milliseconds=1)
    # Most events come within a tenth of the bound, a few as late as it allows.
    delay = np.minimum(rng.exponential(max(bound_ms / 10, 1e-9), len(sequence)), bound_ms)
    arrival = workload.start_ms + bound_ms + sequence * (1000.0 / workload.per_second)
    times: np.ndarray[Any, Any] = np.ceil(arrival - delay).astype(np.int64)
    return times


def _pick(
    rng: np.random.Generator, values: pa.Array, shares: tuple[float, ...], n: int
) -> pa.Array:
    cdf = np.cumsum(shares)
    picked = np.minimum(np.searchsorted(cdf, rng.random(n)), len(shares) - 1)
    return values.take(pa.array(picked))


def _labelled(prefix: str, numbers: np.ndarray[Any, Any]) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def fill(
    kafka: Mapping[str, Any],
    registry: Registry,
    stream: Stream,
    workload: Workload,
    report: Callable[[int], None] = lambda events: None,
) -> Filled:
    """Write `workload` to the topic of `stream` as fast as Kafka takes it."""
    return fill_batches(kafka, registry, stream, batches(workload), report)


def fill_batches(
    kafka: Mapping[str, Any],
    registry: Registry,
    stream: Stream,
    events: Iterable[pa.RecordBatch],
    report: Callable[[int], None] = lambda events: None,
) -> Filled:
    """Write `events` to the topic of `stream` as fast as Kafka takes them."""
    began = time.monotonic()
    with EventProducer(kafka, registry, stream) as producer:
        for batch in events:
            producer.send_batch(batch)
            report(producer.sent)
    seconds = time.monotonic() - began
    return Filled(producer.sent, seconds, end_offsets(kafka, stream.topic), began)


def fill_live(
    kafka: Mapping[str, Any],
    registry: Registry,
    stream: Stream,
    workload: Workload,
    report: Callable[[int], None] = lambda events: None,
) -> Filled:
    """Write `workload` at its own pace, so that an event's time is about that of the clock.

    `workload.start_ms` is when the clock stood so; events go out some fifty times a second, none
    before it is due.
    """
    size = max(1, round(workload.per_second / 50))
    with EventProducer(kafka, registry, stream) as producer:
        began = time.monotonic()
        for batch in batches(workload, size):
            due = began + (producer.sent + len(batch) - 1) / workload.per_second
            time.sleep(max(due - time.monotonic(), 0.0))
            producer.send_batch(batch)
            report(producer.sent)
    seconds = time.monotonic() - began
    return Filled(producer.sent, seconds, end_offsets(kafka, stream.topic), began)


def main(
    events: Annotated[int, typer.Option(min=1, help="How many.")] = Workload.events,
    pages: Annotated[int, typer.Option(min=1)] = Workload.pages,
    users: Annotated[int, typer.Option(min=1)] = Workload.users,
    per_second: Annotated[
        float, typer.Option(min=0.001, help="Events per second of event time.")
    ] = Workload.per_second,
    skew: Annotated[float, typer.Option(min=0, help="Zipf exponent of pages.")] = Workload.skew,
    seed: Annotated[int, typer.Option(min=0)] = Workload.seed,
    start: Annotated[str, typer.Option(help="ISO 8601 with offset.")] = START.isoformat(),
    disorder_seconds: Annotated[float, typer.Option(min=0)] = 8.0,
    live: Annotated[
        bool, typer.Option("--live", help="Start now and keep to the pace of event time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Write generated page views to Kafka.

    Example: python -m bench.workload --events 4000000
    """
    from deploy.console import OUT, print_json, progress_bar
    from deploy.settings import Settings

    settings = Settings()
    disorder = timedelta(seconds=disorder_seconds)
    now_ms = (epoch_ms(datetime.now(UTC)) - disorder // timedelta(milliseconds=1)) if live else 0
    workload = Workload(
        events, pages, users, per_second, skew, seed, now_ms or epoch_ms(start), disorder
    )
    stream = replace(PAGE_VIEWS, namespace=settings.namespace)
    with Registry(**settings.registry_access) as registry, progress_bar(unit="events") as bar:
        task = bar.add_task(stream.topic, total=events)
        filled = (fill_live if live else fill)(
            settings.kafka_client,
            registry,
            stream,
            workload,
            lambda sent: bar.update(task, completed=sent),
        )
    if as_json:
        rounded = {"seconds": round(filled.seconds, 3), "per_second": round(filled.per_second)}
        print_json({"events": filled.events, **rounded, "end_offsets": filled.end_offsets})
    else:
        OUT.print(
            f"{filled.events:,} events to {stream.topic} in {filled.seconds:.1f} s, "
            f"{filled.per_second:,.0f}/s; end offsets {filled.end_offsets}."
        )


if __name__ == "__main__":
    typer.run(main)
