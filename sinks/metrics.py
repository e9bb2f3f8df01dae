"""What the loader counts, and its state of health, for Prometheus and for whoever asks."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from sinks.dead_letters import REASONS
from sinks.rows import Record
from sinks.topics import DeadLetterTopic, LateTopic, Source

_LOG = logging.getLogger("kappa.loader")
_SILENT_SECONDS = 90.0


class NotServed(Exception):
    """Metrics can't be served at the address that they are to be on."""


class LoaderMetrics:
    """Counters and gauges of one loader; `wall_clock` returns seconds since the epoch."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self.registry = CollectorRegistry()
        self.rows = self._counter("rows", "Rows inserted into ClickHouse.", "table")
        self.batches = self._counter("batches", "Batches inserted into ClickHouse.", "table")
        self.failures = self._counter("failures", "Attempts that failed and are repeated.", "topic")
        self.dead_letters = self._counter(
            "dead_letters", "Dead letters loaded.", "stream", "version", "reason"
        )
        self.late_events = self._counter("late_events", "Late events loaded.", "stream", "version")
        self.batch_seconds = Histogram(
            "kappa_loader_batch_seconds",
            "Time from decoding a batch to its rows being in ClickHouse.",
            registry=self.registry,
        )
        self.lag = self._gauge(
            "lag_records", "Records of the topic that are not loaded yet.", "topic"
        )
        self._freshness = self._gauge(
            "freshness_seconds", "Age of the newest row that is loaded.", "view"
        )
        self._newest: dict[str, float] = {}

    def emitted(self, view: str, newest_ms: int) -> None:
        """Note when the newest row loaded for `view` was emitted, epoch milliseconds."""
        first = view not in self._newest
        self._newest[view] = max(self._newest.get(view, 0.0), newest_ms / 1000)
        if first:
            self._freshness.labels(view).set_function(
                lambda: self._wall_clock() - self._newest[view]
            )

    def expects(self, source: Source) -> None:
        """Begin to count what `source` may bring: a count that begins with a burst has no rate."""
        if isinstance(source, DeadLetterTopic):
            for reason in REASONS:
                self.dead_letters.labels(source.stream, str(source.version), reason)
        elif isinstance(source, LateTopic):
            self.late_events.labels(source.stream, str(source.version))

    def judged(self, source: DeadLetterTopic | LateTopic, records: Sequence[Record]) -> None:
        """Count `records` of `source`'s topic by what the job said of them."""
        origin = source.stream, str(source.version)
        if isinstance(source, LateTopic):
            self.late_events.labels(*origin).inc(len(records))
            return
        reasons = Tally(dict(record.headers() or ()).get("reason", b"") for record in records)
        for reason, count in reasons.items():
            self.dead_letters.labels(*origin, reason.decode()).inc(count)

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(f"kappa_loader_{name}", doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, label: str) -> Gauge:
        return Gauge(f"kappa_loader_{name}", doc, [label], registry=self.registry)


class Health:
    """Whether the loop of `name` goes round and what holds it up; threads may share it."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, name: str = "the loader"
    ) -> None:
        self._name = name
        self._clock = clock
        self._beat = clock()
        self._trouble: dict[str, str] = {}

    def beat(self) -> None:
        """Note that the loop went round."""
        self._beat = self._clock()

    def trouble(self, topic: str, reason: str) -> None:
        """Note why `topic` can't be loaded at the moment."""
        self._trouble[topic] = reason

    def recovered(self, topic: str) -> None:
        """Note that `topic` is loaded again."""
        self._trouble.pop(topic, None)

    def report(self) -> tuple[bool, str]:
        """Return whether it goes round, and what waits; a restart would not help that."""
        silent = self._clock() - self._beat
        if silent > _SILENT_SECONDS:
            return False, f"{self._name}'s loop stands still for {silent:.0f} s\n"
        waiting = sorted(dict(self._trouble).items())
        return True, "".join(f"{topic} waits: {reason}\n" for topic, reason in waiting) or "ok\n"


class _Quiet(WSGIRequestHandler):
    # Seconds for which a client may say nothing.
    timeout = 10

    def log_message(self, *_: Any) -> None:
        """Keep each scrape out of the log."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _ServerSix(_Server):
    address_family = socket.AF_INET6


def serve(registry: CollectorRegistry, health: Health, host: str, port: int) -> WSGIServer:
    """Serve /metrics and /healthz on `host` and `port`, or on a free port where it is taken.

    Raises `NotServed` where `host` is no address of this machine.
    """
    prometheus = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != "/healthz":
            return prometheus(environ, start)  # type: ignore[no-any-return]
        well, text = health.report()
        status = "200 OK" if well else "503 Service Unavailable"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]

    kind = _ServerSix if ":" in host else _Server
    made = partial(make_server, host, app=answer, server_class=kind, handler_class=_Quiet)
    try:
        server = made(port)
    except OSError:
        # Several loaders of a group may share a machine.
        try:
            server = made(0)
        except OSError as error:
            raise NotServed(
                f"metrics can't be served on {host}: {error.strerror}; set KAPPA_METRICS_HOST to "
                "an address of this machine."
            ) from error
        _LOG.warning("port %d is taken; metrics are on port %d", port, server.server_port)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
