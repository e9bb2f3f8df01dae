"""Find the transactions that a job's checkpoints count on and Kafka took back, and stop that job.

Flink's committer counts such a loss and goes on. Its count can't be told from a transaction that a
restored job commits once more (FLINK-40689), so the coordinator of the transactions is asked. A
job's transactions are numbered by the checkpoint that they belong to: where one is aborted whose
checkpoint is complete, its rows are in no topic and will not be read again.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from deploy.settings import Settings
from jobs.cluster import LIVE_STATES, Cluster
from jobs.state import (
    Loss,
    StateUnavailable,
    keep_loss,
    keep_passed,
    loss_of,
    passed_of,
)
from jobs.submit import cancel
from schemas.topics import KafkaUnavailable

log = logging.getLogger("kappa.commits")

_ABORTED = "CompleteAbort"
_TIMEOUT_MS = 10_000
# kappa-<job>[-<view>]-<subtask>-<checkpoint>; names of jobs and views have no hyphen.
_NAME = re.compile(r"kappa-(?P<job>[^-]+)(-[^-]+)?-(?P<subtask>\d+)-(?P<checkpoint>\d+)")
_FROM_LIBRDKAFKA = {
    "bootstrap.servers": "bootstrap_servers",
    "security.protocol": "security_protocol",
    "ssl.ca.location": "ssl_cafile",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
}


class Coordinators:
    """The transaction coordinators of the Kafka that `kafka`, a client's settings, leads to."""

    def __init__(self, kafka: Mapping[str, Any]) -> None:
        self._options = {_FROM_LIBRDKAFKA[name]: value for name, value in kafka.items()}
        self._admin: KafkaAdminClient | None = None

    def aborted(self) -> set[str]:
        """Return the names of the transactions that were aborted last; KafkaUnavailable."""
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    **self._options,
                    request_timeout_ms=_TIMEOUT_MS,
                    bootstrap_timeout_ms=_TIMEOUT_MS,
                )
            listed = self._admin.list_transactions(state_filters=[_ABORTED])
        except (KafkaError, OSError) as error:
            self.close()
            raise KafkaUnavailable(f"Kafka does not list its transactions: {error}") from error
        return {one.transactional_id for found in listed.values() for one in found}

    def close(self) -> None:
        """Give back the connections."""
        if self._admin is not None:
            with suppress(KafkaError, OSError):
                self._admin.close()
        self._admin = None


@dataclass(frozen=True)
class Transaction:
    """A transaction of a subtask, and the number of the checkpoint that it belongs to."""

    name: str
    subtask: int
    checkpoint: int


def by_job(names: Iterable[str]) -> dict[str, list[Transaction]]:
    """Return the transactions with these names by their job's name. No I/O."""
    found: dict[str, list[Transaction]] = defaultdict(list)
    for name in names:
        if match := _NAME.fullmatch(name):
            one = Transaction(name, int(match["subtask"]), int(match["checkpoint"]))
            found[match["job"]].append(one)
    return dict(found)


def counted_on(
    transactions: Iterable[Transaction], newest: int, restored: int, parallelism: int
) -> set[str]:
    """Return which of a job's aborted transactions its checkpoints count on. No I/O.

    The job began at checkpoint `restored` and has completed `newest`. Whoever restores a job
    aborts what was open, and each subtask begins those of its own anew: what is left belongs to
    subtasks that are no more since the job runs at a lower `parallelism`. Of theirs only the
    checkpoint restored from tells what it counted on.
    """
    return {
        one.name
        for one in transactions
        if (one.checkpoint <= newest and one.subtask < parallelism) or one.checkpoint == restored
    }


def passed_over(transactions: Iterable[Transaction], restored: int, parallelism: int) -> set[str]:
    """Return which of them `counted_on` passes over for their subtasks are no more. No I/O.

    They are no loss either once the job has as many subtasks again.
    """
    return {
        one.name
        for one in transactions
        if one.subtask >= parallelism and one.checkpoint != restored
    }


def _known(loss: Loss | None) -> set[str]:
    return set(loss.transactions) if loss else set()


def _now() -> datetime:
    return datetime.now(UTC)


class CommitWatch:
    """Looks after the commits of all jobs of the clusters, whatever their namespace."""

    def __init__(self, settings: Settings, now: Callable[[], datetime] = _now) -> None:
        self._settings = settings
        self._now = now
        self._cluster = Cluster(*settings.flink_clusters, timeout=5)
        self._coordinators = Coordinators(settings.kafka_client)
        self._listed: dict[str, list[Transaction]] | None = None

    def look(self) -> dict[str, int]:
        """Stop each job that lost transactions; return their number by job, until accepted.

        Raises `KafkaUnavailable`, `ClusterUnavailable`, `ClusterError` or `StateUnavailable`.
        """
        suspects = self._suspects()
        # Before the losses are read: a job is submitted only once what it lost is accepted.
        live = self._live()
        kept = {name: loss_of(self._cluster, name) for name in suspects}
        lost = {name: self._lost(name, of_job, kept[name]) for name, of_job in suspects.items()}
        if any(lost.values()):
            # One that was being begun anew when it was listed has another state by now.
            still = self._coordinators.aborted()
            for name, transactions in lost.items():
                lost[name] = transactions & still
                if found := sorted(lost[name] - _known(kept[name])):
                    self._stop(name, found)
                    live.discard(name)
                    kept[name] = loss_of(self._cluster, name)
        open_losses = {
            name: len(loss.transactions)
            for name, loss in kept.items()
            if loss is not None and not loss.accepted
        }
        for name in sorted(open_losses.keys() & live):
            # One that its FlinkDeployment began from an older state reads these rows again.
            if lost[name]:
                log.error("%s lost rows and runs still: it is stopped again.", name)
                cancel(self._settings, name)
        return open_losses

    def close(self) -> None:
        """Give back the connections."""
        self._coordinators.close()

    def _live(self) -> set[str]:
        """Return the names of the jobs that are live, as far as clusters answer."""
        jobs, _ = self._cluster.look()
        return {job.name for job in jobs if job.state in LIVE_STATES}

    def _suspects(self) -> dict[str, list[Transaction]]:
        """Return the aborted transactions by job, as last listed where no job is there to lose any.

        A job that was stopped keeps its loss: it is named as long as the watch lasts.
        """
        jobs, silent = self._cluster.look()
        quiet = not silent and all(job.state not in LIVE_STATES for job in jobs)
        if self._listed is None or not quiet:
            self._listed = by_job(self._coordinators.aborted())
        return self._listed

    def _lost(
        self, name: str, transactions: Iterable[Transaction], before: Loss | None
    ) -> set[str]:
        """Return those that job `name`, which is live, counts on and that nobody has accepted."""
        job = self._cluster.live_job(name)
        if job is None:
            return set()
        newest, restored = self._cluster.newest_checkpoint(job.id)
        parallelism = self._cluster.parallelism(job.id)
        accepted = _known(before) if before and before.accepted else set()
        passed = self._passed(name, transactions, passed_over(transactions, restored, parallelism))
        return counted_on(transactions, newest, restored, parallelism) - accepted - passed

    def _passed(self, name: str, transactions: Iterable[Transaction], passed: set[str]) -> set[str]:
        """Return what is or was passed over and is still aborted, and keep it beside the state."""
        before = passed_of(self._cluster, name)
        # Whoever begins from nothing gives the same names again.
        now = passed | (before & {one.name for one in transactions})
        if now != before:
            keep_passed(self._cluster, name, now)
        return now

    def _stop(self, name: str, transactions: list[str]) -> None:
        log.error(
            "%s lost %d transactions (%s): Kafka aborted them after their checkpoint was complete. "
            "It is stopped; its views lack rows and need a rebuild.",
            name,
            len(transactions),
            ", ".join(transactions),
        )
        try:
            keep_loss(self._cluster, name, transactions, self._now())
        except StateUnavailable as error:
            log.error("%s: what it lost could not be noted beside its state: %s", name, error)
        cancel(self._settings, name)
