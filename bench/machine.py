"""What a run's figures were taken on, as its JSON and its pages say."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.console import json_value
from deploy.settings import PROJECT_ROOT

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """A machine, the commit that ran on it, which pins all versions, and the time (UTC)."""

    processor: str
    cores: int
    memory_gigabytes: float
    commit: str
    at: str

    def is_like(self, other: Machine) -> bool:
        """Return whether figures of both can stand side by side: all but the time is the same."""
        return replace(self, at=other.at) == other

    @classmethod
    def here(cls) -> Machine:
        """Return this machine, now."""
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gigabytes=round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1
            ),
            commit=_commit(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __str__(self) -> str:
        """Return one sentence for people."""
        return (
            f"{self.cores} cores ({self.processor}), {self.memory_gigabytes:g} GB, "
            f"commit {self.commit or 'unknown'}, {self.at}."
        )


def keep_json(path: Path, machine: Machine, **facts: Any) -> dict[str, Any]:
    """Write `facts` and the machine they are of to `path`; return what is in the JSON."""
    document = {"machine": asdict(machine), **facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json_value(document), indent=2) + "\n")
    return document


def _processor() -> str:
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str:
    """Return the commit, with a plus where files differ from it; nothing outside a repository."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--match="],
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()
