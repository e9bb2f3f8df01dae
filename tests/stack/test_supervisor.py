"""How the supervisor has jobs submitted again, and gives up, without a stack."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.console import CommandError
from deploy.processes import Record, created
from deploy.settings import Settings
from deploy.stack import SUPERVISOR, Stack, part_names
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
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Record, "write", full)
    kafka = world.supervisor.watched["kafka"]
    world.supervisor._failed(kafka, "ended with exit code 1", 1)
    assert (kafka.record.state, kafka.record.restarts) == ("restarting", 1)
    world.supervisor._expect_resume()
    assert world.supervisor.attempts_left == 3
