"""What the commands of `kappa replay` share: the means to work, questions, and plain errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from deploy.console import ERR, CommandError

if TYPE_CHECKING:
    from replay.steps import Work


@contextmanager
def opened(wait_seconds: float = 0) -> Iterator[Work]:
    """Give the means to work, and turn every failure of theirs into one sentence."""
    from deploy.settings import Settings
    from replay.control import Control, here
    from replay.steps import Work

    settings = Settings()
    place = settings.postgres, settings.namespace, here()
    control = Control(*place, patience=wait_seconds, say=say)
    with _plain_errors(), control:
        if wait_seconds:
            # Whatever comes first may be what is not tried again.
            control.leases()
        yield Work(settings, control, say)


def say(text: str) -> None:
    """Tell people what happens, beside a command's output."""
    ERR.print(text, markup=False, highlight=False, soft_wrap=True)


def confirm(yes: bool, question: str) -> None:
    """Ask `question` unless `yes`; without a yes nothing is done."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"{question} Say --yes, as nobody can be asked here.")
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was done.")


@contextmanager
def _plain_errors() -> Iterator[None]:
    from jobs.catalogue import UnknownJob, UnknownView
    from jobs.cluster import ClusterError, ClusterUnavailable
    from jobs.state import StateUnavailable
    from jobs.submit import SubmissionFailed
    from replay.archive_files import ArchiveFailed
    from replay.comparison import CannotVerify
    from replay.control import Busy, ControlUnavailable, LeaseTaken, Overtaken
    from replay.ending import LoaderHolds
    from replay.facts import DifferentJobs
    from replay.late_kafka import EventsGone
    from replay.late_repair import NotRepairable
    from replay.names import MissingTable, NotSwitched
    from replay.plan import Refused
    from replay.quota import QuotaFailed
    from replay.switch import NotAllowed
    from schemas.registry import RegistryError
    from schemas.topics import KafkaUnavailable, TopicMismatch, UnknownTopic
    from sinks.clickhouse import ClickHouseFailed
    from sinks.pointers import VersionsDiffer

    try:
        yield
    except (
        ArchiveFailed,
        Busy,
        CannotVerify,
        ClickHouseFailed,
        ClusterError,
        ClusterUnavailable,
        ControlUnavailable,
        DifferentJobs,
        EventsGone,
        KafkaUnavailable,
        TopicMismatch,
        LeaseTaken,
        LoaderHolds,
        MissingTable,
        NotAllowed,
        NotRepairable,
        NotSwitched,
        Overtaken,
        QuotaFailed,
        Refused,
        RegistryError,
        StateUnavailable,
        SubmissionFailed,
        UnknownJob,
        UnknownTopic,
        UnknownView,
        VersionsDiffer,
    ) as error:
        raise CommandError(str(error)) from error
