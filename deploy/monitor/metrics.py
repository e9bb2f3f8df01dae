"""The monitor's findings as Prometheus metrics: what is gone is not shown any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deploy.monitor.looking import Findings
from replay.records import ReplayState

Row = tuple[tuple[str, ...], float]


class FindingsCollector(Collector):
    """Gives what `findings` returns at each scrape."""

    def __init__(self, findings: Callable[[], Findings]) -> None:
        self._findings = findings

    def collect(self) -> Iterator[Metric]:
        """Return every metric family with the rows that there are now."""
        now = self._findings()
        yield _gauge(
            "service_answers",
            "Whether the service answered the monitor.",
            ("service",),
            (((name,), float(answers)) for name, answers in now.answers.items()),
        )
        reader = "group", "reader", "topic"
        yield _gauge(
            "lag_records",
            "Records that the reader has not read.",
            reader,
            (((lag.group, lag.reader, lag.topic), lag.records) for lag in now.lags),
        )
        yield _gauge(
            "lag_seconds",
            "Age since arrival of the oldest record that the reader has not read.",
            reader,
            (((lag.group, lag.reader, lag.topic), lag.seconds) for lag in now.lags),
        )
        yield _gauge(
            "view_freshness_seconds",
            "Age since arrival of the oldest event that the view may not show.",
            ("view", "version"),
            (((one.view, str(one.version)), one.seconds) for one in now.freshness),
        )
        events = CounterMetricFamily(
            "kappa_events", "Events that the stream's topic ever got.", labels=("stream",)
        )
        for stream, count in now.events.items():
            events.add_metric((stream,), count)
        yield events
        yield _gauge(
            "open_transaction_records",
            "Records that readers of committed records can't see.",
            ("topic",),
            (((one.topic,), one.records) for one in now.transactions),
        )
        yield _gauge(
            "stable_offset_stuck_seconds",
            "Time that the last stable offset has stood still before the end.",
            ("topic",),
            (((one.topic,), one.stuck_seconds) for one in now.transactions),
        )
        yield _gauge(
            "job_running",
            "Whether the job runs that writes what people see.",
            ("job_name",),
            (((name,), float(runs)) for name, runs in now.running.items()),
        )
        yield _gauge(
            "lost_transactions",
            "Transactions that Kafka aborted after their checkpoint was complete.",
            ("job_name",),
            (((name,), float(count)) for name, count in now.lost.items()),
        )
        yield _gauge(
            "lost_transactions_known",
            "Whether the last look could tell which transactions jobs lost.",
            (),
            [((), float(now.lost_known))],
        )
        yield _gauge(
            "view_astray",
            "1 for each view whose public name shows another version than the live one.",
            ("view", "version", "live"),
            (((one.view, str(one.shown), str(one.live)), 1.0) for one in now.astray),
        )
        yield from _replays(now)


def _replays(now: Findings) -> Iterator[Metric]:
    labels = "replay", "job_name", "version", "state"
    for name, doc in (("pinned", "Events to read."), ("read", "Of the pinned events those read.")):
        rows = (
            ((str(one.replay), one.job, str(one.version), one.state), float(getattr(one, name)))
            for one in now.replays
        )
        yield _gauge(f"replay_{name}_events", doc, labels, rows)
    building = {
        (stream, str(one.version))
        for one in now.replays
        if one.state == ReplayState.BUILDING
        for stream in one.streams
    }
    yield _gauge(
        "rebuilding",
        "1 for each stream that a replay reads anew, by the version it builds.",
        ("stream", "version"),
        ((place, 1.0) for place in sorted(building)),
    )


def _gauge(name: str, doc: str, labels: tuple[str, ...], rows: Iterable[Row]) -> Metric:
    family = GaugeMetricFamily(f"kappa_{name}", doc, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
