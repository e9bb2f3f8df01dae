"""Which processes belong to a home, who holds a port, and how a process group is ended."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import psutil

# Every process of a part inherits it; so a worker is found even when its parent is gone.
MARK = "KAPPA_STACK_PART"
LOOPBACK = "127.0.0.1"
_EVERYWHERE = ("0.0.0.0", "::")
# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# From proc_pid_stat(5): what follows the name, which may hold anything, begins with field 3.
_STATE, _START_TICKS = 0, 22 - 3
_DEAD = ("Z", "X")


def mark(home: Path, part: str) -> str:
    """Return what `MARK` holds in the processes of one part of one home."""
    return f"{home}:{part}"


@cache
def _boot() -> str:
    """Return what names this start of the machine."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


@dataclass(frozen=True)
class Record:
    """A process as written to its pid file; when it was created tells it from a later namesake.

    `created` is in seconds since the machine's start, which `boot` names: a clock that is set
    changes neither. A record without `boot`, as older versions wrote, has seconds since the epoch.
    """

    pid: int
    created: float
    state: str = "starting"
    restarts: int = 0
    last_exit: int | None = None
    detail: str = ""
    boot: str = field(default_factory=_boot)

    def alive(self) -> bool:
        """Whether that very process still runs, and is not a zombie."""
        told = _stat(self.pid)
        if told is None or told[0] in _DEAD:
            return False
        if not self.boot:
            return abs(psutil.boot_time() + told[1] - self.created) < 1.0
        return (told[1], _boot()) == (self.created, self.boot)

    def seconds(self) -> float:
        """Return for how long the process, which is alive, has run."""
        if not self.boot:
            return time.time() - self.created
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.created

    def write(self, path: Path) -> None:
        """Replace `path` by this record, whole or not at all."""
        temporary = path.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


def read_record(path: Path) -> Record | None:
    """Return the record in `path`; None where there is none or it is torn."""
    try:
        return Record(**{"boot": "", **json.loads(path.read_text())})
    except (OSError, ValueError, TypeError):
        return None


def created(pid: int) -> float:
    """Return when `pid` was created, in seconds since the machine's start; 0 if it is gone."""
    told = _stat(pid)
    return told[1] if told is not None else 0.0


def _stat(pid: int) -> tuple[str, float] | None:
    """Return a process's state and when it was created, as `created` has it; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[_STATE], int(fields[_START_TICKS]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock `path`, with this process's record in it; yield False where another has it."""
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        lock.truncate(0)
        json.dump(asdict(Record(os.getpid(), created(os.getpid()))), lock)
        lock.flush()
        yield True


def lock_holder(path: Path) -> Record | None:
    """Return the process that holds the lock `path`; None where none does, or it does not tell.

    Not while one may just try to get it: it would find it held.
    """
    try:
        with path.open() as lock:
            # Shared, as NFS gives no other lock on a file that is open for reading only.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = read_record(path)
        return holder if holder is not None and holder.alive() else None
    except OSError:
        return None
    return None


def members(home: Path, parts: Iterable[str] | None = None) -> list[psutil.Process]:
    """Return the living processes of `parts` of `home` (of all of them for None).

    PostgreSQL overwrites its environment with its title: it is known by its working directory.
    """
    wanted = None if parts is None else {mark(home, part) for part in parts}
    data = home / "data" / "postgres"
    postgres = parts is None or "postgres" in set(parts)
    found = []
    for process in psutil.process_iter():
        try:
            held = process.environ().get(MARK, "")
            ours = held in wanted if wanted is not None else held.startswith(f"{home}:")
            named = postgres and process.name() == "postgres" and Path(process.cwd()) == data
            if (ours or named) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def end(processes: list[psutil.Process], *, stop_signal: int, seconds: float) -> None:
    """Ask `processes` to stop, and kill those that have not within `seconds`."""
    for number, patience in ((stop_signal, seconds), (signal.SIGKILL, 10.0)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        until = time.monotonic() + patience
        # Not `psutil.wait_procs`: it would take a child's exit code from who started it.
        while processes := [process for process in processes if _runs(process)]:
            if time.monotonic() > until:
                break
            time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_until_gone(record: Record, seconds: float) -> bool:
    """Wait for a process that need not be a child; whether it ended in time."""
    deadline = time.monotonic() + seconds
    while record.alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@dataclass(frozen=True)
class PortOwner:
    """Who listens on a port; `pid` is None where the system does not say."""

    port: int
    pid: int | None
    name: str
    folder: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"{self.name} (pid {self.pid}, in {self.folder})"


def port_taken(port: int, host: str = LOOPBACK) -> bool:
    """Whether something listens on `port` where another would on `host`; "" is every address."""
    return any(_taken(one, port) for one in ([host] if host else _EVERYWHERE))


def _taken(host: str, port: int) -> bool:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # As asyncio's servers do; what is taken of IPv4 is asked for by itself.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        # An address that is not this machine's is nobody's port.
        return error.errno in (errno.EADDRINUSE, errno.EACCES)
    return False


def port_owner(port: int) -> PortOwner:
    """Return who holds `port`."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        connections = []
    for connection in connections:
        if connection.laddr and connection.laddr.port == port and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return PortOwner(port, connection.pid, process.name(), process.cwd())
            except psutil.Error:
                return PortOwner(port, connection.pid, "a process", "a folder that is hidden")
    return PortOwner(port, None, "", "")


def die_with_parent() -> None:
    """Let this process be killed when its parent ends; for `subprocess`, and on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
