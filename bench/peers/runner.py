"""Run one contender as a process of its own and watch it from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.peers.protocol import Contender, Task, read_complete, read_progress
from bench.usage import Usage
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack

_START_SECONDS = 300.0
_CLOSING_SECONDS = 120.0
"""For what follows the last row."""
# Cancelling a job takes as long at most, and a little more.
_STOP_SECONDS = 70.0
_TELLING = re.compile(r"(Caused by: )?[\w.]*(Error|Exception)\b.*: .")
_NOTHING = "Python process exits"
PEERS = PROJECT_ROOT / ".peers"


@dataclass
class Run:
    """What was seen of a run; clocks are monotonic.

    `stopped` and `error` say why a run has no rows, and are empty where it ended well.
    """

    began: float
    complete: float = 0.0
    """When its rows were."""
    marks: list[tuple[float, int]] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)
    peak_bytes: int = 0
    stopped: str = ""
    error: str = ""


def python_of(contender: Contender) -> Path:
    """Return the Python that has what the contender needs."""
    if not contender.environment:
        return Path(sys.executable)
    return PEERS / contender.environment / "bin" / "python"


def is_installed(contender: Contender) -> bool:
    """Tell whether what the contender needs was installed to the end."""
    if not contender.environment:
        return True
    return (PEERS / contender.environment / ".installed").exists()


def run(settings: Settings, module: str, contender: Contender, task: Task, seconds: float) -> Run:
    """Run `module` for at most `seconds` after its first report."""
    folder = Path(task.folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    task.write(folder / "task.json")
    taskmanager = _fresh_taskmanager(settings) if contender.on_flink else None
    # Whoever needs a TaskManager needs it started, as others need their own process.
    seen = Run(_born(taskmanager) if taskmanager else time.monotonic())
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(python_of(contender)), "-m", f"bench.peers.{module}", str(folder / "task.json")],
            cwd=PROJECT_ROOT,
            env=_environment(settings, contender),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _watch(process, seen, Usage(taskmanager or psutil.Process(process.pid)), task, seconds)
        finally:
            late, ended = process.poll() is None, time.monotonic()
            _end(process)
    seen.marks = read_progress(folder)
    seen.complete = read_complete(folder) or ended
    if late:
        seen.stopped = f"stopped after {ended - seen.began:.0f} s, unfinished"
    elif process.returncode:
        seen.error = last_words((folder / "log").read_text(errors="replace"))
    return seen


def _born(process: psutil.Process) -> float:
    """Return what the monotonic clock showed when `process` was started."""
    return time.monotonic() - (time.time() - process.create_time())


def _watch(
    process: subprocess.Popen[bytes], seen: Run, usage: Usage, task: Task, seconds: float
) -> None:
    deadline = seen.began + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if not seen.marks and (marks := read_progress(Path(task.folder))):
            seen.marks, deadline = marks, marks[0][0] + seconds
        if complete := read_complete(Path(task.folder)):
            deadline = max(deadline, complete + _CLOSING_SECONDS)
        seen.cpu.append((time.monotonic(), usage.cpu_seconds()))
        usage.note_memory()
        seen.peak_bytes = usage.peak_bytes
        # Looking for descendants reads the whole process table.
        time.sleep(0.5)


def last_words(log: str) -> str:
    """Return the line of a failed run's output that names the error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.match(line) and _NOTHING not in line]
    return (telling or lines or ["it ended without a word"])[-1][:300]


def _environment(settings: Settings, contender: Contender) -> Mapping[str, str]:
    own = os.environ | settings.environment()
    if contender.environment:
        own["PYTHONPATH"] = str(PROJECT_ROOT)
    return own


def _fresh_taskmanager(settings: Settings) -> psutil.Process:
    """Return a TaskManager that has run nothing yet: a JVM keeps its heap and its compiled code."""
    stack = Stack(settings)
    pid = next(part.pid for part in stack.status() if part.name == "taskmanager")
    if pid:
        psutil.Process(pid).kill()
    pid = stack.wait_healthy("taskmanager", 120, other_than=pid or 0).pid
    return psutil.Process(pid)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all below it; asked first, for a job on Flink has to be cancelled."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in family:
        if child.is_running():
            child.kill()
