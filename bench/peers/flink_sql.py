"""Flink SQL over the JVM's Avro format, on the same cluster as this project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from bench.answers import committed_values
from bench.peers.protocol import Cell, Contender, Table, Task
from bench.peers.runner import last_words
from bench.throughput import source_position
from deploy.flink import client, client_environment
from deploy.settings import Settings
from jobs.cluster import LIVE_STATES, Cluster
from jobs.submit import end_all
from schemas.topics import ensure_raw_topic

_LACKS = "no dead letters: a bad record stops it; late events are dropped unseen"
_SETTINGS = (
    "the same TaskManager as this project's, RocksDB with 512 MB a slot, checkpoints every 5 s, "
    "exactly-once sink"
)
_THE_SAME = "the same query as in the other mode"
CONTENDERS = {
    "flink_sql": Contender(
        "Flink SQL, avro-confluent",
        _LACKS,
        _SETTINGS,
        answers=("W1", "W2", "W3", "W4", "W5", "W6", "W7"),
        notes={
            **dict.fromkeys(("W1", "W2", "W3"), "group windows, corrected by what comes late"),
            "W4": "its session windows know no lateness: the watermark is held back by it",
            "W5": "the watermark is held back by the lateness",
            "W6": "by arrival, as this project does it",
            "W7": "eight views in one statement set; hopping windows without corrections; "
            "mini-batches of 1 s",
        },
        on_flink=True,
    ),
    "flink_sql_tvf": Contender(
        "Flink SQL, window table functions",
        f"{_LACKS}; no corrections: lateness delays windows",
        f"{_SETTINGS}; local and global aggregation",
        answers=("W1", "W2", "W3"),
        cannot=dict.fromkeys(("W4", "W5", "W6", "W7"), _THE_SAME),
        mode="tvf",
        on_flink=True,
    ),
}
_JOB = Path(__file__).with_name("flink_sql_job.py")


def main(task: Task) -> None:
    """Run the query over the topic as it stands, to its end, and read what it committed."""
    settings = Settings()
    topics = {table.view: f"{settings.topic_prefix}flink_sql.{table.view}" for table in task.tables}
    for topic in topics.values():
        ensure_raw_topic(settings.kafka_client, topic, len(task.source.ends))
    cluster, name = Cluster(settings.flink), f"{settings.topic_prefix}flink_sql"
    try:
        job = _submit(settings, name)
        while (state := cluster.state(job)) in LIVE_STATES:
            read = source_position(settings, [source.topic for source in task.sources])
            if read:
                task.report(round(read))
            time.sleep(0.5)
    finally:
        # It would read on, and start anew on the next one's TaskManager.
        end_all(cluster, name)
    if state != "FINISHED":
        raise RuntimeError(f"Flink SQL: {state}: {cluster.failure(job)}")
    # What was read last no metric told: they went with the job.
    task.report(task.events)
    task.complete()
    for table in task.tables:
        task.write_rows(_newest(settings, table, topics[table.view]), table=table)


def _newest(settings: Settings, table: Table, topic: str) -> Iterable[tuple[Cell, ...]]:
    newest: dict[tuple[Cell, ...], tuple[Cell, ...]] = {}
    for value in committed_values(settings, topic):
        row = json.loads(value)
        newest[tuple(row[name] for name in table.keys)] = tuple(row[name] for name in table.cells)
    return (key + cells for key, cells in newest.items())


def _submit(settings: Settings, output: str) -> str:
    address = settings.flink.split("//", 1)[-1]
    command = [*client(settings), "run", "--detached", "-m", address, "-py", str(_JOB)]
    done = subprocess.run(
        [*command, os.path.abspath(sys.argv[1]), output],
        env=os.environ | client_environment(settings),
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr, flush=True)
    found = re.search(r"JobID ([0-9a-f]{32})", done.stdout)
    if found is None:
        raise RuntimeError(f"Flink SQL was not accepted: {last_words(done.stdout + done.stderr)}")
    return found[1]


if __name__ == "__main__":
    main(Task.given())
