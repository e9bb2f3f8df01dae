"""A producer's metrics for Prometheus, read at each scrape, so that sending costs no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.producer import EventProducer


class MetricsPortTaken(Exception):
    """Metrics can't be served where they were asked for."""


class ProducerCollector(Collector):
    """What one producer has done so far; register it with the registry of your process."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer

    def collect(self) -> Iterator[Metric]:
        """Return the producer's counts."""
        producer, stream = self._producer, (self._producer.stream.name,)
        sent = CounterMetricFamily(
            "kappa_producer_events", "Events handed over for sending.", labels=("stream",)
        )
        sent.add_metric(stream, producer.sent)
        failed = CounterMetricFamily(
            "kappa_producer_failures", "Events that Kafka did not confirm.", labels=("stream",)
        )
        failed.add_metric(stream, producer.failed)
        waiting = GaugeMetricFamily(
            "kappa_producer_waiting_events",
            "Events handed over and not confirmed yet.",
            labels=("stream",),
        )
        waiting.add_metric(stream, producer.waiting)
        yield from (sent, failed, waiting)


@contextmanager
def metrics_served(producer: EventProducer, host: str, port: int | None) -> Iterator[None]:
    """Serve the metrics of `producer` meanwhile; not at all where `port` is None.

    Raises `MetricsPortTaken`.
    """
    if port is None:
        yield
        return
    registry = CollectorRegistry()
    registry.register(ProducerCollector(producer))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsPortTaken(
            f"metrics can't be served on {host}:{port}: {error.strerror}; choose another port."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
