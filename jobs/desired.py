"""Which jobs should run on the embedded cluster: one file each, kept until they are cancelled.

A standalone Flink cluster forgets its jobs with its JobManager; these files are what
`jobs.resume` submits again, from the newest checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.settings import Settings


@dataclass(frozen=True)
class DesiredJob:
    """A submission to repeat; `name` is Flink's name of the job."""

    name: str
    job: str
    version: int
    views: tuple[str, ...] = ()
    namespace: str = ""
    options: Mapping[str, str | float] = field(default_factory=dict)


def remember(settings: Settings, desired: DesiredJob) -> None:
    """Keep `desired` until `forget`."""
    path = _file(settings, desired.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(desired), indent=2) + "\n")
    temporary.replace(path)


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
    return [DesiredJob(**{**entry, "views": tuple(entry["views"])}) for entry in loaded]


def _folder(settings: Settings) -> Path:
    return settings.home / "jobs"


def _file(settings: Settings, name: str) -> Path:
    return _folder(settings) / f"{name}.json"
