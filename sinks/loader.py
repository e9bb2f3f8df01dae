"""Load view topics, dead letters and late events into ClickHouse, as a process of its own."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from typing import Any

from deploy.settings import Settings
from schemas.registry import Registry, RegistryError
from sinks.batches import Limits
from sinks.clickhouse import ClickHouse
from sinks.member import Loader, LoaderStopped, TopicChanged
from sinks.metrics import Health, LoaderMetrics, NotServed, serve
from sinks.rows import BadRecord
from sinks.tables import InvalidViewSchema

METRICS_PORT = 251
FAILURES = (BadRecord, InvalidViewSchema, LoaderStopped, NotServed, RegistryError, TopicChanged)

_LOG = logging.getLogger("kappa.loader")
_KAFKA_LOG = "kappa.loader.kafka"
_ALIKE = 60
_SELDOM_SECONDS = 10.0


def group_of(settings: Settings) -> str:
    """Return the consumer group that the loaders of the namespace share."""
    return f"kappa-loader-{settings.namespace}" if settings.namespace else "kappa-loader"


def consumer_config(settings: Settings, group: str = "") -> dict[str, Any]:
    """Return the settings of a loader's Kafka consumer, in its usual group or in `group`."""
    return settings.kafka_client | {
        "group.id": group or group_of(settings),
        "client.id": "kappa-loader",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        # Where to begin is decided here; a place that is gone must not be skipped in silence.
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "partition.assignment.strategy": "cooperative-sticky",
        "topic.metadata.refresh.interval.ms": 1000,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 2000,
        "max.poll.interval.ms": 300_000,
        # With the default of a second, a reader that is faster than the broker stands idle.
        "fetch.queue.backoff.ms": 20,
        "queued.max.messages.kbytes": 65_536,
        "logger": logging.getLogger(_KAFKA_LOG),
    }


def open_loader(
    settings: Settings,
    *,
    group: str = "",
    limits: Limits | None = None,
    metrics: LoaderMetrics | None = None,
    health: Health | None = None,
    keeps_going: bool = False,
) -> Loader:
    """Return a loader for the namespace of `settings`.

    One that keeps going loads other topics while one can't be loaded.
    """
    return Loader(
        consumer_config(settings, group),
        settings.topic_prefix,
        # A statement must end before the group takes the consumer for dead.
        ClickHouse(settings, timeout=60.0),
        Registry(**settings.registry_access, timeout=5.0, retry_for=0.0),
        limits=limits,
        metrics=metrics,
        health=health,
        keeps_going=keeps_going,
    )


class _Seldom(logging.Filter):
    """Lets what begins alike pass once in a while: a client retries many times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether `record` is to be written."""
        text = record.getMessage()[:_ALIKE]
        if record.created - self._last.get(text, 0.0) < _SELDOM_SECONDS:
            return False
        self._last[text] = record.created
        return True


def stop_signal() -> Callable[[], bool]:
    """Return whether the process was told to end, by SIGTERM or SIGINT, since this call."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return lambda: bool(received)


def main() -> int:
    """Run a loader until it is told to stop; its failures end as one line and exit code 1."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger(_KAFKA_LOG).addFilter(_Seldom())
    settings = Settings()
    stop = stop_signal()
    metrics, health = LoaderMetrics(), Health()
    try:
        serve(metrics.registry, health, settings.metrics_host, settings.port(METRICS_PORT))
        open_loader(settings, metrics=metrics, health=health, keeps_going=True).run(stop)
    except Exception as error:
        _LOG.critical("the loader stops: %s", error, exc_info=not isinstance(error, FAILURES))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
