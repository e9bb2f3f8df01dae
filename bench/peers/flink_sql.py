"""Flink SQL over the JVM's Avro format, on the same cluster as this project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from bench.answers import committed_values
from bench.peers.protocol import Contender, Task
from bench.peers.runner import last_words
from bench.throughput import source_position
from deploy.flink import client, client_environment
from deploy.settings import Settings
from jobs.cluster import LIVE_STATES, Cluster
from schemas.topics import ensure_raw_topic

CONTENDERS = {
    "flink_sql": Contender(
        "Flink SQL, avro-confluent",
        "no dead letters: a bad record stops it; late events are dropped unseen",
        answers=("W1", "W2", "W3"),
        on_flink=True,
    )
}
_JOB = Path(__file__).with_name("flink_sql_job.py")


def main(task: Task) -> None:
    """Run the query over the topic as it stands, to its end, and read what it committed."""
    settings = Settings()
    output = f"{settings.topic_prefix}flink_sql.{task.question.lower()}"
    ensure_raw_topic(settings.kafka_client, output, len(task.ends))
    cluster, job = Cluster(settings.flink), _submit(settings, output)
    try:
        while (state := cluster.state(job)) in LIVE_STATES:
            if read := round(source_position(settings, task.topic)):
                task.report(read)
            time.sleep(0.5)
    except SystemExit:
        cluster.cancel(job)
        raise
    if state != "FINISHED":
        raise RuntimeError(f"Flink SQL: {state}: {cluster.failure(job)}")
    # What was read last no metric told: they went with the job.
    task.report(task.events)
    newest: dict[tuple[int, str], tuple[int | None, ...]] = {}
    for value in committed_values(settings, output):
        row = json.loads(value)
        newest[row["window_start"], row["page_id"]] = tuple(row[name] for name in task.measures)
    task.write_rows((start, page, *cells) for (start, page), cells in newest.items())


def _submit(settings: Settings, output: str) -> str:
    address = settings.flink.split("//", 1)[-1]
    command = [str(client(settings)), "run", "--detached", "-m", address, "-py", str(_JOB)]
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
