"""Limit the bytes a second that a job's Kafka consumers read, by the broker's client quotas."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from deploy.console import CommandError
from deploy.java import classpath, jar_folder, java_command
from deploy.java_kafka import java_kafka, write_properties
from deploy.settings import Settings

_CLASS = "kafka.admin.ConfigCommand"
_SECONDS = 60.0
_LIMITED = re.compile(r"^Quota configs for client-id '([^']+)' are .*consumer_byte_rate=", re.M)


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


def limited_consumers(settings: Settings, groups: Collection[str]) -> list[str]:
    """Return the client ids of consumers in `groups` that have a limit, however many these had."""
    own = re.compile(rf"(?:{'|'.join(map(re.escape, groups))})-\d+")
    done = _run(settings, "--describe")
    if done.returncode or "Error while executing" in done.stderr:
        raise QuotaFailed(f"Kafka tells nothing of quotas: {_first_line(done)}.")
    found = _LIMITED.findall(done.stdout)
    return sorted(client for client in found if own.fullmatch(client))


def free_groups(settings: Settings, groups: Collection[str]) -> None:
    """Take every limit from the consumers in `groups`, those of a killed process too."""
    free_consumers(settings, limited_consumers(settings, groups))


def clear_groups(
    settings: Settings,
    groups: Collection[str],
    say: Callable[[str], None],
    left: str = "Limits of consumers that are gone may be left there; they do no harm.",
) -> None:
    """Do as `free_groups`; where that fails, say so and what is `left`, and go on."""
    try:
        free_groups(settings, groups)
    except QuotaFailed as error:
        say(f"{error} {left}")


def _alter(settings: Settings, client: str, *change: str) -> None:
    done = _run(settings, "--entity-name", client, "--alter", *change)
    # It ends with 0 after an error, and says what it did after none.
    if done.returncode or "Completed updating" not in done.stdout:
        raise QuotaFailed(f"Kafka takes no quota for {client}: {_first_line(done)}")


def _run(settings: Settings, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        jars = jar_folder("kafka")
    except CommandError as error:
        raise QuotaFailed(f"Kafka can't be asked for quotas: {error}") from error
    where = ["--bootstrap-server", settings.kafka, "--entity-type", "clients"]
    with tempfile.NamedTemporaryFile("w", suffix=".properties") as file:
        write_properties(java_kafka(settings), file)
        where += ["--command-config", file.name]
        try:
            return subprocess.run(
                java_command(
                    [_CLASS, *where, *words],
                    options=["-Xmx128m", "-XX:TieredStopAtLevel=1"],
                    temporary=Path(tempfile.gettempdir()),
                    classpath=classpath([jars]),
                ),
                capture_output=True,
                text=True,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise QuotaFailed(f"Kafka told nothing of quotas in {_SECONDS:.0f} s.") from error


def _first_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
    return lines[0]
