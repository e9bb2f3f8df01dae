"""Limit the bytes a second that a job's Kafka consumers read, by the broker's client quotas."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.java import classpath, jar_folder, java_command
from deploy.java_kafka import java_kafka, write_properties
from deploy.settings import Settings

_CLASS = "kafka.admin.ConfigCommand"
_SECONDS = 60.0


class QuotaFailed(Exception):
    """Kafka did not take a quota."""


def consumer_ids(group: str, subtasks: int) -> list[str]:
    """Return the client ids of a job's consumers in `group`: one a subtask, for all its streams."""
    return [f"{group}-{number}" for number in range(subtasks)]


def limit_consumers(settings: Settings, clients: Sequence[str], bytes_per_second: float) -> None:
    """Let `clients` read so many bytes a second together, from now on."""
    share = max(1024, round(bytes_per_second / len(clients)))
    for client in clients:
        _alter(settings, client, "--add-config", f"consumer_byte_rate={share}")


def free_consumers(settings: Settings, clients: Sequence[str]) -> None:
    """Take every limit from `clients`."""
    for client in clients:
        try:
            _alter(settings, client, "--delete-config", "consumer_byte_rate")
        except QuotaFailed as error:
            if "Invalid config" not in str(error):
                raise
            # It had no limit.


def _alter(settings: Settings, client: str, *change: str) -> None:
    where = ["--bootstrap-server", settings.kafka, "--entity-type", "clients"]
    with tempfile.NamedTemporaryFile("w", suffix=".properties") as file:
        write_properties(java_kafka(settings), file)
        where += ["--command-config", file.name]
        done = subprocess.run(
            java_command(
                [_CLASS, *where, "--entity-name", client, "--alter", *change],
                options=["-Xmx128m", "-XX:TieredStopAtLevel=1"],
                temporary=Path(tempfile.gettempdir()),
                classpath=classpath([jar_folder("kafka")]),
            ),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    # It ends with 0 after an error, and says what it did after none.
    if done.returncode or "Completed updating" not in done.stdout:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
        raise QuotaFailed(f"Kafka takes no quota for {client}: {lines[0]}")
