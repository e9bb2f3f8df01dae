"""The embedded stack as a whole: bring it up, take it down, say how it is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from deploy.console import CommandError
from deploy.flink import jobmanager, taskmanager
from deploy.kafka import kafka
from deploy.parts import Part, folders
from deploy.postgres import postgres
from deploy.processes import (
    MARK,
    PortOwner,
    Record,
    created,
    end,
    lock_holder,
    members,
    port_owner,
    read_record,
    wait_until_gone,
)
from deploy.registry import registry
from deploy.services import services
from deploy.settings import PROJECT_ROOT, Settings, variable

SUPERVISOR, RESUME = "supervisor", "resume"
_UP_SECONDS, _DOWN_SECONDS, _PORT_SECONDS = 360.0, 120.0, 10.0
# Many jobs are submitted one after the other, each for half a minute on a slow machine.
_RESUME_SECONDS = 1_800.0
# One that dies this often while starting will not come up by waiting.
_FAILURES_TO_GIVE_UP = 3


@dataclass(frozen=True)
class PartStatus:
    """How one part is."""

    name: str
    title: str
    state: str
    """healthy, starting, restarting, stopping, waiting, stopped or orphaned (alive, but with no
    supervisor that would start it again: `kappa up` puts that right)."""
    pid: int | None
    port: int
    restarts: int
    uptime_seconds: float | None
    last_exit: int | None
    detail: str


Progress = Callable[[list[PartStatus]], None]


def all_parts(settings: Settings) -> list[Part]:
    """Return the parts in the order in which they are shown; the reverse is that of stopping."""
    return [
        postgres(settings),
        kafka(settings),
        registry(settings),
        jobmanager(settings),
        taskmanager(settings),
        *services(settings),
    ]


def part_names(parts: Iterable[Part]) -> str:
    """Return the names of `parts` as a supervisor's record has them."""
    return " ".join(part.name for part in parts)


class Stack:
    """The embedded stack of one home."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.place = folders(settings)
        self.parts = all_parts(settings)
        self._supervisor: subprocess.Popen[bytes] | None = None

    def up(self, on_progress: Progress | None = None) -> None:
        """Start what does not run; wait until every part is healthy and the jobs run again.

        CommandError where a port is taken, or a part or a job does not come up.
        """
        before = {one.name: one.restarts for one in self.status()}
        with self._alone():
            if self._supervised():
                self._check_parts()
                self._check_base()
                self._ask_to_resume()
            else:
                self._end_unrecorded()
                end(members(self.place.home), stop_signal=signal.SIGTERM, seconds=15)
                self._check_ports()
                self._start_supervisor()
                before = {}
        self._wait(before, on_progress)

    def down(self) -> None:
        """Stop everything of this home, in reverse order; nothing stays behind."""
        # Where nothing ever ran there is nothing to hold, and perhaps no right to write.
        try:
            self.place.run.stat()
        except FileNotFoundError:
            if not members(self.place.home):
                return
        # What an `up` waits for after it let go of the lock, this may stop.
        with self._alone():
            record = self._supervisor_record()
            if record is not None and record.alive():
                self._end_supervisor(record)
            self._end_unrecorded()
            for part in reversed(self.parts):
                found = members(self.place.home, [part.name])
                end(found, stop_signal=part.stop_signal, seconds=part.stop_seconds)
                (self.place.run / f"{part.name}.json").unlink(missing_ok=True)
            end(members(self.place.home), stop_signal=signal.SIGTERM, seconds=10)
            (self.place.run / f"{SUPERVISOR}.json").unlink(missing_ok=True)
        if self._supervisor is not None:
            self._supervisor.wait()
            self._supervisor = None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold off whoever else starts or stops this home's stack.

        Two that start it at once must not both start a supervisor, and one that stops it must not
        end, or forget, what another has just started.
        """
        self.place.run.mkdir(parents=True, exist_ok=True)
        path = self.place.run / "up.lock"
        try:
            # NFS refuses to lock against all others what is not open for writing.
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except PermissionError:
            # Another user may read it: what he then can't do has an error of its own.
            lock = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _end_unrecorded(self) -> None:
        """End a supervisor that holds its lock though no record tells of it."""
        holder = lock_holder(self.place.run / f"{SUPERVISOR}.lock")
        if holder is not None:
            self._end_supervisor(holder)

    def _end_supervisor(self, record: Record) -> None:
        # One that hangs would hold its lock against the next.
        for number, seconds in ((signal.SIGTERM, _DOWN_SECONDS), (signal.SIGKILL, 10.0)):
            try:
                os.kill(record.pid, number)
            except ProcessLookupError:
                return
            except PermissionError as error:
                raise CommandError(
                    f"The stack in {self.place.home} is another user's (its supervisor is pid "
                    f"{record.pid}): be that user to stop it."
                ) from error
            if wait_until_gone(record, seconds):
                return

    def status(self) -> list[PartStatus]:
        """Return how each part is, from the supervisor's records and the process table."""
        return [self._part_status(part) for part in self.parts]

    def supervisor_pid(self) -> int | None:
        """Return the supervisor's process id, None if it does not run."""
        record = self._supervisor_record()
        return record.pid if record is not None and record.alive() else None

    def part(self, name: str) -> Part:
        """Return the part called `name`; CommandError with the known names otherwise."""
        for part in self.parts:
            if part.name == name:
                return part
        known = ", ".join(part.name for part in self.parts)
        raise CommandError(f'"{name}" is no part of the stack; there are {known}.')

    def wait_healthy(self, name: str, deadline: float = 60.0, *, other_than: int = 0) -> PartStatus:
        """Wait up to `deadline` seconds until part `name` is healthy and has another pid.

        TimeoutError where it is not.
        """
        self.part(name)
        until = time.monotonic() + deadline
        while True:
            found = next(one for one in self.status() if one.name == name)
            if found.state == "healthy" and found.pid != other_than:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"{name} is {found.state} after {deadline:.0f} s")
            time.sleep(0.05)

    def _part_status(self, part: Part) -> PartStatus:
        record = read_record(self.place.run / f"{part.name}.json")
        running = record is not None and record.alive()
        known = record or Record(pid=0, created=0.0)
        state = known.state
        if not running and not (state == "restarting" and self._supervised()):
            # Dead and not yet noticed, or no supervisor that would notice.
            state = "stopped" if not self._supervised() else "restarting" if record else "waiting"
        elif not self._supervised():
            state = "orphaned"
        return PartStatus(
            name=part.name,
            title=part.title,
            state=state,
            pid=known.pid if running else None,
            port=part.ports[0],
            restarts=known.restarts,
            uptime_seconds=known.seconds() if running else None,
            last_exit=known.last_exit,
            detail=known.detail,
        )

    def _supervisor_record(self) -> Record | None:
        return read_record(self.place.run / f"{SUPERVISOR}.json")

    def _supervised(self) -> bool:
        return self.supervisor_pid() is not None

    def _check_parts(self) -> None:
        record = self._supervisor_record()
        known = record.detail.split() if record is not None else []
        missing = [part.title for part in self.parts if part.name not in known]
        if missing:
            raise CommandError(
                f"The running stack has no {' and no '.join(missing)}, because an older version "
                "started it; do `kappa down`, then `kappa up`."
            )

    def _check_base(self) -> None:
        try:
            environment = psutil.Process(self.supervisor_pid()).environ()
        except psutil.Error:
            return
        name, wanted = variable("port_base"), str(self.settings.port_base)
        running = environment.get(name, wanted)
        if running != wanted:
            raise CommandError(
                f"The running stack's ports count up from {running}, not from {wanted}: set "
                f"{name}={running} to use it, or do `kappa down` first; a second stack wants a "
                "KAPPA_HOME of its own."
            )

    def _ask_to_resume(self) -> None:
        """Have the supervisor try again what it gave up: its cause may be gone."""
        path = self.place.run / f"{RESUME}.json"
        record = read_record(path)
        if record is not None and record.state == "failed":
            replace(record, state="starting").write(path)

    def _check_ports(self) -> None:
        deadline = time.monotonic() + _PORT_SECONDS
        for part in self.parts:
            while (port := next(part.taken_ports(), None)) is not None:
                owner = port_owner(port)
                # A process of ours that was just killed holds its ports for a moment.
                if self._is_foreign(owner) or time.monotonic() > deadline:
                    raise CommandError(
                        f"Port {port}, which {part.title} needs, is held by {owner}; "
                        "end that, or choose other ports with KAPPA_PORT_BASE=…"
                    )
                time.sleep(0.1)

    def _is_foreign(self, owner: PortOwner) -> bool:
        folder = Path(owner.folder)
        return folder.is_absolute() and not folder.is_relative_to(self.place.home)

    def _start_supervisor(self) -> None:
        self.place.logs.mkdir(parents=True, exist_ok=True)
        for name in (RESUME, *(part.name for part in self.parts)):
            (self.place.run / f"{name}.json").unlink(missing_ok=True)
        with self.place.log(SUPERVISOR).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.supervisor"],
                cwd=PROJECT_ROOT,
                env=self._supervisor_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._supervisor = process
        # Until it writes its own: so nobody takes it for stopped while it is still importing.
        names = part_names(self.parts)
        record = Record(pid=process.pid, created=created(process.pid), detail=names)
        record.write(self.place.run / f"{SUPERVISOR}.json")

    def _supervisor_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != MARK}
        return {**inherited, **self.settings.environment()}

    def _wait(self, before: dict[str, int], on_progress: Progress | None) -> None:
        until = time.monotonic() + _UP_SECONDS
        while True:
            now = self.status()
            if on_progress is not None:
                on_progress(now)
            if all(one.state == "healthy" for one in now):
                if not self._resuming():
                    return
                if time.monotonic() > until + _RESUME_SECONDS:
                    raise CommandError(f"The jobs are not resumed; see {self.place.log(RESUME)}")
            self._give_up_if_hopeless(now, before, late=time.monotonic() > until)
            time.sleep(0.05)

    def _resuming(self) -> bool:
        """Whether jobs are still being submitted again; CommandError where that failed."""
        record = read_record(self.place.run / f"{RESUME}.json")
        if record is not None and record.state == "failed":
            raise CommandError(f"The jobs could not be resumed; see {self.place.log(RESUME)}")
        return record is not None and record.state != "healthy"

    def _give_up_if_hopeless(
        self, now: list[PartStatus], before: dict[str, int], *, late: bool
    ) -> None:
        for one in now:
            failures = one.restarts - before.get(one.name, 0)
            if one.state != "healthy" and (late or failures >= _FAILURES_TO_GIVE_UP):
                raise CommandError(
                    f"{one.title} does not come up ({one.detail or one.state}); "
                    f"see {self.place.log(one.name)}"
                )
        if not self._supervised():
            raise CommandError(f"The supervisor ended; see {self.place.log(SUPERVISOR)}")
