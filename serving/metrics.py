"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class ServingMetrics:
    """Counters and gauges of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "kappa_serving_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "kappa_serving_request_seconds",
            "Time from a request to the end of its answer.",
            ["route"],
            registry=self.registry,
        )
        self.snapshots = Counter(
            "kappa_serving_snapshots", "Pictures of the stack taken.", registry=self.registry
        )
        self.sent = Counter(
            "kappa_serving_snapshots_sent",
            "Pictures written to live clients.",
            registry=self.registry,
        )
        self.skipped = Counter(
            "kappa_serving_snapshots_skipped",
            "Pictures that live clients were too slow for.",
            registry=self.registry,
        )
        self.refused = Counter(
            "kappa_serving_live_refused",
            "Live connections refused.",
            ["reason"],
            registry=self.registry,
        )
        self.reads = Histogram(
            "kappa_serving_source_read_seconds",
            "Time to read one source of the picture.",
            ["source"],
            registry=self.registry,
        )
        self.failures = Counter(
            "kappa_serving_source_failures",
            "Readings of a source that failed.",
            ["source"],
            registry=self.registry,
        )
        self._clients = Gauge(
            "kappa_serving_live_clients", "Live connections open now.", registry=self.registry
        )
        self._age = Gauge(
            "kappa_serving_source_age_seconds",
            "Age of what is known of a source.",
            ["source"],
            registry=self.registry,
        )

    def count_clients(self, clients: Callable[[], int]) -> None:
        """Let the number of live connections be what `clients` returns."""
        self._clients.set_function(clients)

    def watch_age(self, source: str, age: Callable[[], float]) -> None:
        """Let the age of `source` be what `age` returns, in seconds."""
        self._age.labels(source).set_function(age)

    def took(self, source: str, seconds: float, well: bool) -> None:
        """Note one reading of a source."""
        self.reads.labels(source).observe(seconds)
        if not well:
            self.failures.labels(source).inc()
