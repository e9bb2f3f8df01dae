"""The process that starts the parts of a home, watches them and starts the dead ones again."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import IO

from deploy.flink import TEMPORARY_OF_NO_PART
from deploy.parts import Folders, Part, folders
from deploy.processes import MARK, Record, created, end, locked, mark, members, read_record
from deploy.services import runnable
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import RESUME, SUPERVISOR, all_parts, part_names

log = logging.getLogger("supervisor")
_TICK_SECONDS = 0.1
_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 30.0
# A part that has run this long starts the next backoff from the beginning.
_STEADY_SECONDS = 60.0
# Besides the log of before, which is as long at most.
_LOG_BYTES, _LOG_SECONDS = 50_000_000, 10.0
# A busy machine takes minutes; ending what starts slowly and starting it anew makes it slower yet.
_STARTUP_DEADLINE_SECONDS = 300.0
# Jobs do not survive their JobManager: this module, where it exists, submits them again.
_RESUME_MODULE = "jobs.resume"
_RESUME_NEEDS = ("kafka", "registry", "jobmanager", "taskmanager")
_RESUME_ATTEMPTS = 3


@dataclass
class Watched:
    """A part and what is known of its process."""

    part: Part
    record: Record = field(default_factory=lambda: Record(pid=0, created=0.0, state="waiting"))
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    next_start: float = 0.0
    failures: int = 0


class Supervisor:
    """Keeps the parts of one home alive until it is told to stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.place: Folders = folders(settings)
        self.watched = {part.name: Watched(part) for part in all_parts(settings)}
        self.stopping = False
        self.attempts_left = 0
        self.next_attempt = 0.0
        self.gave_up = False
        self.resume: subprocess.Popen[bytes] | None = None
        self.resume_again = False
        self.owed: dict[str, Record] = {}
        self.next_shortening = 0.0

    def run(self) -> None:
        """Start and watch until SIGTERM or SIGINT, then stop everything in reverse order."""
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        end(members(self.place.home), stop_signal=signal.SIGTERM, seconds=15)
        for name in TEMPORARY_OF_NO_PART:
            shutil.rmtree(self.place.temporary(name), ignore_errors=True)
        while not self.stopping:
            for one in self.watched.values():
                self._look_after(one)
            self._resume_jobs()
            self._write_owed()
            self._shorten_logs()
            time.sleep(_TICK_SECONDS)
        self._stop_all()

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _look_after(self, one: Watched) -> None:
        if one.process is not None and one.process.poll() is not None:
            self._died(one, one.process.returncode)
        if one.process is None:
            if time.monotonic() >= one.next_start and self._ready(one.part):
                self._start(one)
        elif one.record.state == "starting":
            self._check(one)

    def _ready(self, part: Part) -> bool:
        needed = [self.watched[name] for name in part.after if name in self.watched]
        return all(other.record.state == "healthy" for other in needed)

    def _start(self, one: Watched) -> None:
        part = one.part
        try:
            # What was killed leaves its temporary files: a TaskManager all its state.
            shutil.rmtree(self.place.temporary(part.name), ignore_errors=True)
            for folder in (self.place.data(part.name), self.place.temporary(part.name)):
                folder.mkdir(parents=True, exist_ok=True)
            part.prepare()
            one.process = self._spawn(part)
        except Exception as error:
            log.exception("%s did not start", part.name)
            self._failed(one, str(error), None)
            return
        pid = one.process.pid
        one.started = time.monotonic()
        log.info("%s started, pid %d", part.name, pid)
        self._note(one, pid=pid, created=created(pid), state="starting", detail="")
        if part.name == "jobmanager":
            self._expect_resume()

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **part.environment, MARK: mark(self.place.home, part.name)}
        environment["TMPDIR"] = str(self.place.temporary(part.name))
        with self._log_file(part.name) as output:
            return subprocess.Popen(
                part.command(),
                cwd=self.place.data(part.name),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=part.user,
                group=part.user,
            )

    def _log_file(self, name: str) -> IO[bytes]:
        return self.place.log(name).open("ab")

    def _shorten_logs(self) -> None:
        """Move what is in a log that has grown long to the one of before."""
        if time.monotonic() < self.next_shortening:
            return
        self.next_shortening = time.monotonic() + _LOG_SECONDS
        for path in map(self.place.log, (SUPERVISOR, RESUME, *self.watched)):
            # Without room for a copy nothing is taken away.
            with contextlib.suppress(OSError):
                if path.stat().st_size > _LOG_BYTES:
                    shutil.copyfile(path, path.with_suffix(".log.1"))
                    # Who writes it has it open, and goes on at its end.
                    os.truncate(path, 0)

    def _check(self, one: Watched) -> None:
        with contextlib.suppress(Exception):
            if one.part.healthy():
                took = time.monotonic() - one.started
                log.info("%s healthy after %.1f s", one.part.name, took)
                self._note(one, state="healthy")
                return
        if time.monotonic() - one.started > _STARTUP_DEADLINE_SECONDS:
            self._end(one.part, stop_signal=signal.SIGKILL)

    def _died(self, one: Watched, code: int) -> None:
        log.warning("%s ended with exit code %d", one.part.name, code)
        # Its children (Python workers, say) may outlive it and hold its ports.
        self._end(one.part, stop_signal=signal.SIGKILL)
        self._failed(one, f"ended with exit code {code}", code)
        for other in self.watched.values():
            if one.part.name in other.part.falls_with:
                self._end(other.part, stop_signal=signal.SIGKILL)

    def _failed(self, one: Watched, detail: str, code: int | None) -> None:
        steady = one.process is not None and time.monotonic() - one.started > _STEADY_SECONDS
        one.failures = 1 if steady else one.failures + 1
        one.process, one.next_start = None, time.monotonic() + _backoff(one.failures)
        restarts = one.record.restarts + 1
        self._note(one, state="restarting", restarts=restarts, last_exit=code, detail=detail)

    def _note(self, one: Watched, **changes: object) -> None:
        one.record = replace(one.record, **changes)  # type: ignore[arg-type]
        self._write(one.part.name, one.record)

    def _write(self, name: str, record: Record) -> None:
        owed = self.owed.pop(name, None)
        try:
            record.write(self.place.run / f"{name}.json")
        except OSError as error:
            # A full disk may well be why a part ended; somebody must be there once it has room.
            self.owed[name] = record
            if owed is None:
                log.warning("can't note how %s is: %s", name, error)

    def _write_owed(self) -> None:
        for name, record in list(self.owed.items()):
            self._write(name, record)

    def _end(self, part: Part, *, stop_signal: int) -> None:
        found = members(self.place.home, [part.name])
        end(found, stop_signal=stop_signal, seconds=part.stop_seconds)

    def _resume_jobs(self) -> None:
        if self.resume is not None and self.resume.poll() is not None:
            self._resumed(self.resume.returncode)
        if self.gave_up and RESUME not in self.owed and self._asked_to_resume():
            self._expect_resume()
        states = {name: one.record.state for name, one in self.watched.items()}
        ready = all(states[name] == "healthy" for name in _RESUME_NEEDS)
        due = self.resume is None and time.monotonic() >= self.next_attempt
        if not (self.attempts_left and ready and due):
            return
        self.attempts_left -= 1
        with self._log_file(RESUME) as output:
            self.resume = subprocess.Popen(
                [sys.executable, "-m", _RESUME_MODULE],
                cwd=PROJECT_ROOT,
                env={**os.environ, MARK: mark(self.place.home, RESUME)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _expect_resume(self) -> None:
        """Have the jobs submitted again as soon as the parts they need are healthy."""
        self.attempts_left = _RESUME_ATTEMPTS if runnable(_RESUME_MODULE) else 0
        self.next_attempt, self.gave_up = 0.0, False
        # What a run under way has submitted may have gone with the JobManager it found.
        self.resume_again = self.resume is not None
        if self.attempts_left:
            self._note_resume("starting")

    def _asked_to_resume(self) -> bool:
        """Whether `kappa up` took back the note that resuming failed."""
        record = read_record(self.place.run / f"{RESUME}.json")
        return record is not None and record.state == "starting"

    def _resumed(self, code: int) -> None:
        log.info("resuming jobs ended with exit code %d", code)
        self.resume = None
        again, self.resume_again = self.resume_again, False
        if again:
            return
        if code == 0:
            self.attempts_left = 0
        self.next_attempt = time.monotonic() + _backoff(_RESUME_ATTEMPTS - self.attempts_left)
        if not self.attempts_left:
            self.gave_up = code != 0
            self._note_resume("failed" if self.gave_up else "healthy", code)

    def _note_resume(self, state: str, code: int | None = None) -> None:
        self._write(RESUME, Record(pid=0, created=0.0, state=state, last_exit=code))

    def _stop_all(self) -> None:
        end(members(self.place.home, [RESUME]), stop_signal=signal.SIGTERM, seconds=5)
        for one in reversed(list(self.watched.values())):
            self._note(one, state="stopping")
            if one.process is not None and one.process.poll() is None:
                one.process.send_signal(one.part.stop_signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    one.process.wait(one.part.stop_seconds)
            self._end(one.part, stop_signal=signal.SIGKILL)
            (self.place.run / f"{one.part.name}.json").unlink(missing_ok=True)
            log.info("%s stopped", one.part.name)
        (self.place.run / f"{RESUME}.json").unlink(missing_ok=True)


def _backoff(failures: int) -> float:
    """Return for how many seconds to wait after so many failures, one after the other."""
    return min(_BACKOFF_SECONDS * 2.0 ** (failures - 1), _MAX_BACKOFF_SECONDS)


def main() -> None:
    """Run the supervisor of the home in the settings; a second one for the same home ends."""
    settings = Settings()
    place = folders(settings)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with locked(place.run / f"{SUPERVISOR}.lock") as alone:
        if not alone:
            log.warning("another supervisor holds %s", place.home)
            return
        record = place.run / f"{SUPERVISOR}.json"
        supervisor = Supervisor(settings)
        names = part_names(one.part for one in supervisor.watched.values())
        began = created(os.getpid())
        Record(pid=os.getpid(), created=began, state="healthy", detail=names).write(record)
        try:
            supervisor.run()
        finally:
            record.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
