"""Ask each service whether it answers, and compare a clock with this machine's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata

from deploy.doctor import findings
from deploy.doctor.findings import Finding, bad, well
from deploy.java_kafka import SecretError, java_kafka
from deploy.settings import Settings
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable
from replay.control import Control, ControlUnavailable
from schemas.registry import Registry, RegistryError
from schemas.topics import KafkaUnavailable, topic_names
from sinks.clickhouse import ClickHouse, ClickHouseFailed

_FAILURES = (
    ClickHouseFailed,
    ClusterError,
    ClusterUnavailable,
    ControlUnavailable,
    KafkaUnavailable,
    RegistryError,
    SecretError,
)
_REMEDY = "start the stack with `kappa up`, or set the address and user: KAPPA_{}_…"


def look(settings: Settings) -> Iterator[Finding]:
    """Return how each service is, and the clocks of those that tell the time."""
    asked: dict[str, tuple[str, Callable[[Settings], str | Finding]]] = {
        "kafka": ("KAFKA", _kafka),
        "registry": ("REGISTRY", _registry),
        "flink": ("FLINK", _flink),
        "clickhouse": ("CLICKHOUSE", _clickhouse),
        "postgres": ("POSTGRES", _postgres),
    }
    # One that is away is given its time, and the others needn't wait for that.
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = {name: pool.submit(ask, settings) for name, (_, ask) in asked.items()}
    for name, (prefix, _) in asked.items():
        try:
            answer = answers[name].result()
            yield answer if isinstance(answer, Finding) else well(name, answer)
        except _FAILURES as error:
            yield bad(name, str(error), _REMEDY.format(prefix))
        except Exception as error:
            # Whatever it is, what else was found must be told too.
            yield bad(name, f"{type(error).__name__}: {error}", _REMEDY.format(prefix))
    clocks = {"clickhouse": _clickhouse_ahead, "postgres": _postgres_ahead}
    for name, ahead in clocks.items():
        # That it does not answer is said above.
        with suppress(Exception):
            yield findings.clock(name, ahead(settings))


def _kafka(settings: Settings) -> str:
    java_kafka(settings)
    return f"{len(topic_names(settings.kafka_client))} topics at {settings.kafka}"


def _registry(settings: Settings) -> str:
    with Registry(**settings.registry_access, retry_for=0.0) as registry:
        registry.versions("kappa-doctor")
        return registry.address


def _flink(settings: Settings) -> Finding:
    cluster = Cluster(*settings.flink_clusters, timeout=10)
    answer = cluster.get("/overview")
    _, silent = cluster.look()
    if silent:
        raise silent[0]
    free, slots = answer["slots-available"], answer["slots-total"]
    found = f"Flink {answer['flink-version']}, {free} of {slots} slots free, at {settings.flink}"
    return findings.flink(answer["flink-version"], metadata.version("apache-flink"), found)


def _clickhouse(settings: Settings) -> str:
    clickhouse = ClickHouse(settings, reader=True, timeout=10)
    try:
        return f"{len(clickhouse.table_ids())} tables and views at {clickhouse.address}"
    finally:
        clickhouse.close()


def _postgres(settings: Settings) -> str:
    with Control(settings.postgres, settings.namespace) as control:
        return f"{len(control.replays())} replays in its journal"


def _clickhouse_ahead(settings: Settings) -> float:
    clickhouse = ClickHouse(settings, reader=True, timeout=10)
    try:
        before = time.time()
        ((theirs,),) = clickhouse.query("SELECT toUnixTimestamp64Milli(now64(3))").rows
        return float(theirs / 1000 - (before + time.time()) / 2)
    finally:
        clickhouse.close()


def _postgres_ahead(settings: Settings) -> float:
    with (
        Control(settings.postgres, settings.namespace) as control,
        control.transaction() as connection,
    ):
        before = time.time()
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp()) AS now").fetchone()
        assert row is not None
        return float(row["now"]) - (before + time.time()) / 2
