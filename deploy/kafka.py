"""The embedded Kafka: one KRaft broker that is its own controller."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.java import classpath, jar_folder, java_command
from deploy.parts import Folders, Part, folders
from deploy.settings import Settings

BROKER_PORT, CONTROLLER_PORT = 92, 93
_HEAP = "-Xmx1g"
# Stable, so that a formatted data folder always belongs to the cluster that is started on it.
_CLUSTER_ID = "a2FwcGEtdmlld3MtZW1iZA"


def server_properties(settings: Settings, data: Path) -> dict[str, str]:
    """Return the broker's configuration."""
    broker = f"127.0.0.1:{settings.port(BROKER_PORT)}"
    controller = f"127.0.0.1:{settings.port(CONTROLLER_PORT)}"
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "log.dirs": str(data / "log"),
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "transaction.max.timeout.ms": "900000",
        "log.retention.ms": "-1",
        # A far-future timestamp would push a stream's watermark past every event to come.
        "log.message.timestamp.after.max.ms": "3600000",
        "message.max.bytes": str(3 * 1024 * 1024),
        "replica.fetch.max.bytes": str(3 * 1024 * 1024),
    }


_LOG4J = """\
status = warn
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = File
appender.file.name = File
appender.file.type = RollingFile
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss,SSS}} %-5p %c - %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
logger.state.name = state.change.logger
logger.state.level = WARN
"""


def kafka(settings: Settings) -> Part:
    """Return the broker as a part of the stack."""
    place = folders(settings)
    data = place.data("kafka")
    return Part(
        name="kafka",
        title="Kafka broker",
        ports=(settings.port(BROKER_PORT), settings.port(CONTROLLER_PORT)),
        command=lambda: _java(place, "kafka.Kafka", str(data / "server.properties")),
        prepare=lambda: _prepare(settings, place),
        healthy=lambda: _answers(f"127.0.0.1:{settings.port(BROKER_PORT)}"),
        stop_seconds=30,
    )


def _java(place: Folders, main: str, *arguments: str) -> list[str]:
    options = [
        _HEAP,
        "-Xms256m",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=50",
        f"-Dlog4j2.configurationFile=file:{place.data('kafka') / 'log4j2.properties'}",
    ]
    return java_command(
        [main, *arguments],
        options=options,
        temporary=place.temporary("kafka"),
        classpath=classpath([jar_folder("kafka")]),
    )


def _prepare(settings: Settings, place: Folders) -> None:
    data = place.data("kafka")
    lines = [f"{key}={value}" for key, value in server_properties(settings, data).items()]
    (data / "server.properties").write_text("\n".join(lines) + "\n")
    (data / "log4j2.properties").write_text(_LOG4J.format(log=place.log("kafka")))
    if (data / "log" / "meta.properties").exists():
        return
    storage_tool = _java(place, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID)
    properties = str(data / "server.properties")
    done = subprocess.run(
        [*storage_tool, "--ignore-formatted", "-c", properties], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"Kafka could not format {data / 'log'}: {done.stderr or done.stdout}")


def _answers(bootstrap: str) -> bool:
    from confluent_kafka.admin import AdminClient

    # librdkafka writes refused connections to standard error, which is this process's log.
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    return bool(client.list_topics(timeout=2).brokers)
