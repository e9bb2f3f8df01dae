"""Which jobs should run on the embedded cluster: one file each, kept until they are cancelled.

A standalone Flink cluster forgets its jobs with its JobManager; these files are what
`jobs.resume` submits again, from the newest checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from deploy.settings import Settings


@dataclass(frozen=True)
class DesiredJob:
    """A submission to repeat; `name` is Flink's name of the job, `code` the copy that it runs.

    `restore` is what it was to go on from, as `jobs.submit.submit` takes it, and `before` the
    newest state there was: until there is a newer one, it goes on from `restore` once more.
    `committed` is what a job before it had committed in its consumer group when it began from
    nothing, by topic:partition.
    """

    name: str
    job: str
    version: int
    views: tuple[str, ...] = ()
    namespace: str = ""
    options: Mapping[str, str | float] = field(default_factory=dict)
    code: str = ""
    restore: str = "latest"
    before: str | None = None
    committed: Mapping[str, int] = field(default_factory=dict)


class Kept:
    """What is told while a job is being submitted."""

    runs = False
    """Whether Flink has it, so that it stays kept whatever becomes of the submission."""


@contextmanager
def alone(settings: Settings, name: str) -> Iterator[None]:
    """Wait until nobody else submits the job called `name`, and keep others from it meanwhile."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    # To read: another user may have made the file.
    lock = os.open(folder / f"{name}.lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def remembered(settings: Settings, desired: DesiredJob) -> Iterator[Kept]:
    """Keep `desired` until `forget`; where the block fails, what was kept before it.

    What is forgotten meanwhile stays so.
    """
    path = _file(settings, desired.name)
    before = path.read_text() if path.exists() else None
    # Before the job runs: whoever is killed then must not leave one that a restart forgets.
    _write(path, json.dumps(asdict(desired), indent=2) + "\n")
    kept = Kept()
    try:
        yield kept
    except BaseException:
        if kept.runs or not is_desired(settings, desired.name):
            raise
        if before is None:
            forget(settings, desired.name)
        else:
            _write(path, before)
        raise


def is_desired(settings: Settings, name: str) -> bool:
    """Whether the job called `name` is kept."""
    return _file(settings, name).exists()


def forget(settings: Settings, name: str) -> None:
    """Drop the job called `name`, if it is kept."""
    _file(settings, name).unlink(missing_ok=True)


def idle_timeout_of(settings: Settings, name: str) -> float | None:
    """Return the idle timeout, in seconds, with which the kept job `name` was submitted, if any."""
    found = (one.options for one in desired_jobs(settings) if one.name == name)
    seconds = next(found, {}).get("idle_timeout_seconds")
    return None if seconds is None else float(seconds)


def desired_jobs(settings: Settings) -> list[DesiredJob]:
    """Return all kept jobs, by name."""
    found = sorted(_folder(settings).glob("*.json"))
    loaded = [json.loads(path.read_text()) for path in found]
    return [_from_json(entry) for entry in loaded]


def _from_json(entry: dict[str, Any]) -> DesiredJob:
    # Other versions of the code may keep more.
    known = {one.name: entry[one.name] for one in fields(DesiredJob) if one.name in entry}
    return DesiredJob(**{**known, "views": tuple(entry["views"])})


def begun(settings: Settings, job: str) -> bool:
    """Whether `mark_begun` was ever called for the job."""
    return _begun_file(settings, job).exists()


def mark_begun(settings: Settings, job: str) -> None:
    """Note that the job need not be begun again, though it may be cancelled since."""
    path = _begun_file(settings, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _begun_file(settings: Settings, job: str) -> Path:
    return _folder(settings) / "begun" / f"{settings.topic_prefix}{job}"


def _folder(settings: Settings) -> Path:
    # As the supervisor has it, which is told the whole path.
    return settings.home.expanduser().resolve() / "jobs"


def _file(settings: Settings, name: str) -> Path:
    return _folder(settings) / f"{name}.json"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)
