"""How the supervisor has jobs submitted again, and gives up, without a stack."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from deploy.commands import logs
from deploy.console import CommandError
from deploy.processes import MARK, Record, created, mark, read_record
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import RESUME, SUPERVISOR, Stack, part_names
from deploy.supervisor import Supervisor


class World:
    """A supervisor whose parts are well, and the exit codes of the next resumptions."""

    def __init__(self, settings: Settings) -> None:
        self.now = 0.0
        self.codes: list[int] = []
        self.tried: list[float] = []
        self.stack = Stack(settings)
        for folder in (self.stack.place.run, self.stack.place.logs):
            folder.mkdir(parents=True)
        self.supervisor = Supervisor(settings)
        names = part_names(self.stack.parts)
        for name in (SUPERVISOR, *names.split()):
            record = Record(os.getpid(), created(os.getpid()), state="healthy", detail=names)
            record.write(self.stack.place.run / f"{name}.json")
            if name != SUPERVISOR:
                self.supervisor.watched[name].record = record

    def spawn(self, *_: object, **__: object) -> SimpleNamespace:
        """Stand in for the process that resumes, which ends at once."""
        self.tried.append(self.now)
        code = self.codes.pop(0)
        return SimpleNamespace(poll=lambda: code, returncode=code)

    def tick(self, *_: object) -> None:
        """Let the supervisor look once more."""
        self.now = round(self.now + 0.1, 1)
        self.supervisor._resume_jobs()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(Settings(home=tmp_path / "home"))
    monkeypatch.setattr("deploy.supervisor.subprocess.Popen", made.spawn)
    monkeypatch.setattr("deploy.supervisor.time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_attempts_to_resume_come_ever_later_and_end(world: World) -> None:
    world.codes = [1, 1, 1]
    world.supervisor._expect_resume()
    for _ in range(100):
        world.tick()
    assert world.tried == [0.1, 0.7, 1.8]


def test_up_has_what_was_given_up_tried_again(world: World) -> None:
    world.codes = [1, 1, 1]
    world.supervisor._expect_resume()
    with pytest.raises(CommandError, match="The jobs could not be resumed"):
        world.stack.up(world.tick)
    world.codes = [1, 1, 1]
    with pytest.raises(CommandError, match="The jobs could not be resumed"):
        world.stack.up(world.tick)
    world.codes = [1, 0]
    world.stack.up(world.tick)
    assert len(world.tried) == 8
    world.stack.up(world.tick)
    assert len(world.tried) == 8


def test_a_jobmanager_that_dies_while_jobs_are_resumed_has_them_resumed_once_more(
    world: World,
) -> None:
    world.codes = [0, 0]
    world.supervisor._expect_resume()
    world.supervisor._resume_jobs()
    # The run found the JobManager before; what it submitted there may be gone.
    world.supervisor._expect_resume()
    for _ in range(100):
        world.tick()
    assert len(world.tried) == 2


def test_a_full_disk_does_not_end_the_supervisor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, write = [True], Record.write

    def write_or_fail(record: Record, path: Path) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(record, path)

    monkeypatch.setattr(Record, "write", write_or_fail)
    kafka = world.supervisor.watched["kafka"]
    write(Record(0, 0.0, state="healthy"), world.stack.place.run / "resume.json")
    world.supervisor._failed(kafka, "ended with exit code 1", 1)
    assert (kafka.record.state, kafka.record.restarts) == ("restarting", 1)
    world.supervisor._expect_resume()
    assert world.supervisor.attempts_left == 3
    world.supervisor._write_owed()
    assert state_of(world, "kafka") == state_of(world, "resume") == "healthy"
    full.clear()
    world.supervisor._write_owed()
    assert (state_of(world, "kafka"), state_of(world, "resume")) == ("restarting", "starting")
    assert not world.supervisor.owed


def test_what_a_killed_part_left_of_temporary_files_is_gone_when_it_starts_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, one = world.stack.place, world.supervisor.watched["taskmanager"]
    for folder in (place.temporary("taskmanager"), place.data("taskmanager")):
        (folder / "left").mkdir(parents=True)
    process = SimpleNamespace(pid=os.getpid())
    monkeypatch.setattr(world.supervisor, "_spawn", lambda _: process)
    world.supervisor._start(one)
    assert one.record.state == "starting"
    assert list(place.temporary("taskmanager").iterdir()) == []
    assert (place.data("taskmanager") / "left").exists()


def test_temporary_files_that_no_part_clears_are_gone_when_the_stack_starts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world.stack.place
    for name in ("flink", "flink-client", "another"):
        (place.temporary(name) / "left").mkdir(parents=True)
    monkeypatch.setattr("deploy.supervisor.members", lambda *_: [])
    monkeypatch.setattr("deploy.supervisor.signal.signal", lambda *_: None)
    world.supervisor.stopping = True
    world.supervisor.run()
    assert [one.name for one in (place.home / "tmp").iterdir()] == ["another"]


def test_a_log_that_grew_long_is_shortened_under_who_writes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.supervisor._LOG_BYTES", 10)
    names = ("kafka", RESUME, SUPERVISOR)
    with ExitStack() as open_until_end:
        written = [open_until_end.enter_context(world.supervisor._log_file(n)) for n in names]
        for log in written:
            log.write(b"much of it\n")
            log.flush()
        world.supervisor._shorten_logs()
        for log in written:
            log.write(b"more\n")
            log.flush()
        # Not each tick, of which there are ten a second.
        world.supervisor._shorten_logs()
    world.now += 10
    world.supervisor._shorten_logs()
    for path in map(world.stack.place.log, names):
        assert path.read_bytes() == b"more\n"
        assert path.with_suffix(".log.1").read_bytes() == b"much of it\n"


@pytest.mark.parametrize(
    ("lines", "shown"), [(1, "5\n"), (2, "4\n5\n"), (3, "3\n4\n5\n"), (9, "2\n3\n4\n5\n")]
)
def test_the_last_lines_of_a_log_are_shown_though_it_was_just_shortened(
    lines: int,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KAPPA_HOME", str(tmp_path))
    run = subprocess.run
    monkeypatch.setattr("os.execvp", lambda _, command: run(command, check=True))
    (tmp_path / "logs").mkdir()
    # As Flink leaves them: the second is the newer one.
    for age, (name, text) in enumerate([("", "4\n5\n"), (".2", "2\n3\n"), (".1", "0\n1\n")]):
        path = tmp_path / "logs" / f"jobmanager.log{name}"
        path.write_text(text)
        os.utime(path, (1_000 - age, 1_000 - age))
    logs("jobmanager", lines=lines)
    assert capfd.readouterr().out == shown


def state_of(world: World, name: str) -> str:
    """Return how `name` is, as `kappa status` reads it."""
    record = read_record(world.stack.place.run / f"{name}.json")
    assert record is not None
    return record.state


_HANGS = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""


def test_down_ends_a_supervisor_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.stack._DOWN_SECONDS", 0.2)
    stack = Stack(Settings(home=tmp_path))
    stack.place.run.mkdir()
    command = [sys.executable, "-c", _HANGS]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hanging:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == b"ready\n"
        record = Record(hanging.pid, created(hanging.pid), state="healthy")
        record.write(stack.place.run / f"{SUPERVISOR}.json")
        stack.down()
        ended = hanging.poll()
        hanging.kill()
    assert ended == -signal.SIGKILL


_HOLDS = """
import signal, sys
from pathlib import Path
from deploy.processes import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_supervisor_without_a_record_is_ended(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(Settings(home=tmp_path))
    stack.place.run.mkdir()
    held = str(stack.place.run / f"{SUPERVISOR}.lock")
    monkeypatch.setattr(stack, "_check_ports", lambda: None)
    monkeypatch.setattr(stack, "_start_supervisor", lambda: None)
    monkeypatch.setattr(stack, "_wait", lambda *_: None)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDS, held], cwd=PROJECT_ROOT, stdout=subprocess.PIPE
    ) as holding:
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"ready\n"
        getattr(stack, command)()
        ended = holding.poll()
        holding.kill()
    assert ended == -signal.SIGTERM


def test_down_does_not_end_what_an_up_has_just_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, other = (Stack(Settings(home=tmp_path)) for _ in range(2))
    stack.place.run.mkdir()
    happened = []

    def found(*_: object) -> list[psutil.Process]:
        if threading.current_thread() is not starting:
            starting.start()
            starting.join(0.3)
            happened.append("down looked")
        return []

    starting = threading.Thread(target=other.up)
    monkeypatch.setattr(stack, "parts", [])
    monkeypatch.setattr("deploy.stack.members", found)
    monkeypatch.setattr(other, "_check_ports", lambda: None)
    monkeypatch.setattr(other, "_start_supervisor", lambda: happened.append("up started"))
    monkeypatch.setattr(other, "_wait", lambda *_: None)
    stack.down()
    starting.join()
    assert happened == ["down looked", "up started"]


def test_down_writes_nothing_where_nothing_ever_ran(tmp_path: Path) -> None:
    Stack(Settings(home=tmp_path / "home")).down()
    assert list(tmp_path.iterdir()) == []


def test_down_ends_what_runs_though_its_records_are_gone(tmp_path: Path) -> None:
    environment = {**os.environ, MARK: mark(tmp_path, "kafka")}
    command = [sys.executable, "-c", _HOLDS, str(tmp_path / "held")]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE
    ) as running:
        # For a moment after its start a process shows no environment yet.
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        Stack(Settings(home=tmp_path)).down()
        ended = running.poll()
        running.kill()
    assert ended == -signal.SIGTERM


def test_down_says_that_a_stack_is_another_users(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("deploy.stack.os.kill", refuse)
    home = world.stack.place.home
    with pytest.raises(CommandError) as refused:
        world.stack.down()
    assert str(refused.value) == (
        f"The stack in {home} is another user's (its supervisor is pid {os.getpid()}): be that "
        "user to stop it."
    )
    assert world.stack.supervisor_pid() == os.getpid()


def test_up_does_not_take_a_stack_on_other_ports_for_the_one_asked_for(tmp_path: Path) -> None:
    stack = Stack(Settings(home=tmp_path, port_base=28_000))
    stack.place.run.mkdir()
    environment = {**os.environ, "KAPPA_PORT_BASE": "18000"}
    command = [sys.executable, "-c", _HANGS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as running:
        # For a moment after its start a process shows no environment yet.
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        names = part_names(stack.parts)
        record = Record(running.pid, created(running.pid), state="healthy", detail=names)
        record.write(stack.place.run / f"{SUPERVISOR}.json")
        try:
            with pytest.raises(CommandError, match="count up from 18000, not from 28000"):
                stack.up()
        finally:
            running.kill()
