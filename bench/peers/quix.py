"""Quix Streams: fastavro, re-keyed by page through Kafka, its own tumbling windows."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import uuid
from typing import Any

from bench.peers.protocol import Contender, Task

CONTENDERS = {
    "quix": Contender(
        "Quix Streams",
        "no dead letters or closed windows here; at-least-once",
        # A window's state is rewritten for each event: with a set of visitors it never ends.
        answers=("W1",),
        environment="quix",
    )
}
# Each its own process: threads would share Python's lock.
_WORKERS = 2
_REPORT_EVENTS = 2_000
_IDLE_SECONDS = 10.0


def main() -> None:
    """Run the workers, which end when nothing comes any more."""
    group = f"bench-quix-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "bench.peers.quix", sys.argv[1], group]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(_WORKERS)]
    if any(worker.wait() for worker in workers):
        raise RuntimeError("a worker of Quix Streams failed")


def work(task: Task, group: str, number: int) -> None:
    """Be one worker, and write the rows of the pages that fall to it."""
    from quixstreams import Application
    from quixstreams.dataframe.windows import Count, Sum

    application = Application(
        broker_address=task.bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=f"{task.folder}/state-{number}",
        loglevel=logging.WARNING,
        consumer_extra_config={"queued.min.messages": 100_000},
        producer_extra_config={"linger.ms": 50, "compression.type": "lz4"},
    )
    topic = application.topic(task.topic, key_deserializer="bytes", value_deserializer="bytes")
    newest: dict[tuple[int, str], tuple[int | None, ...]] = {}

    def keep(row: Any, key: Any, timestamp: int, headers: Any) -> None:
        duration = row["duration_ms"] if row["timed"] else None
        newest[row["start"], key] = (row["views"], duration)

    window = (
        application.dataframe(topic)
        .apply(_decoder(task, number))
        .group_by("page_id")
        .tumbling_window(task.size_ms, grace_ms=task.disorder_ms + task.lateness_ms)
        .agg(views=Count(), duration_ms=Sum("duration_ms"), timed=Count("duration_ms"))
        .current()
    )
    window.update(keep, metadata=True)
    application.run(timeout=_IDLE_SECONDS)
    task.write_rows(((start, page, *row) for (start, page), row in newest.items()), number)


def _decoder(task: Task, number: int) -> Any:
    """Return what decodes a value to the fields in use; a window's time is the record's."""
    import fastavro

    schema = fastavro.parse_schema(task.schema)
    read = 0

    def decode(value: bytes) -> dict[str, Any]:
        nonlocal read
        body = io.BytesIO(value)
        body.seek(5)
        event: Any = fastavro.schemaless_reader(body, schema, None)
        if read % _REPORT_EVENTS == 0:
            task.report(read, number)
        read += 1
        return {"page_id": event["page_id"], "duration_ms": event["duration_ms"]}

    return decode


if __name__ == "__main__":
    if len(sys.argv) == 2:
        Task.given()
        main()
    else:
        work(Task.given(), sys.argv[2], int(sys.argv[3]))
