"""What the endpoint counts, in the text form of Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)


class Metrics:
    """The endpoint's own registry; `kind` is select, insert or other."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queries = Counter(
            "clickhouse_endpoint_queries", "Statements begun.", ["kind"], registry=self.registry
        )
        self.failures = Counter(
            "clickhouse_endpoint_failures",
            "Requests refused or failed, by ClickHouse's name of the error.",
            ["error"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "clickhouse_endpoint_query_seconds",
            "Time from a statement's start to the end of its answer.",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.inserted_rows = Counter(
            "clickhouse_endpoint_inserted_rows", "Rows written.", registry=self.registry
        )
        self.running = Gauge(
            "clickhouse_endpoint_running_queries",
            "Statements that run now.",
            ["kind"],
            registry=self.registry,
        )
        # Resident memory of the process, which is the engine's.
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Return all values in Prometheus's text form."""
        return generate_latest(self.registry)
