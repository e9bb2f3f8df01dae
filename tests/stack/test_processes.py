"""Process records, port owners and generated configuration, without the stack."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import psutil
import pytest

from deploy.flink import TASKMANAGER_METRICS_PORT, configuration, jobmanager, taskmanager
from deploy.kafka import server_properties
from deploy.processes import (
    MARK,
    Record,
    created,
    end,
    lock_holder,
    locked,
    mark,
    members,
    port_owner,
    port_taken,
    read_record,
)
from deploy.settings import Settings
from deploy.stack import Stack, all_parts
from tests.security.servers import free_port

_IDLE = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_record_of_a_later_process_with_the_same_pid_is_not_alive() -> None:
    now = created(os.getpid())

    assert Record(pid=os.getpid(), created=now).alive()
    assert not Record(pid=os.getpid(), created=now - 60).alive()
    assert not Record(pid=os.getpid(), created=now, boot="another").alive()


def test_process_is_known_and_as_old_as_it_is_though_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = Record(pid=os.getpid(), created=created(os.getpid()))
    age = record.seconds()
    later, earlier = time.time() + 3_600, psutil.boot_time() - 3_600

    monkeypatch.setattr("time.time", lambda: later)
    monkeypatch.setattr("psutil.boot_time", lambda: earlier)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: earlier)

    assert record.alive()
    assert age <= record.seconds() < age + 60


def test_record_of_an_older_version_holds_until_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.json"
    born = psutil.Process().create_time()

    for at, lives in ((born, True), (born - 60, False)):
        path.write_text(json.dumps({"pid": os.getpid(), "created": at, "state": "healthy"}))
        record = read_record(path)
        assert record is not None
        assert record.alive() is lives


def test_lock_tells_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "supervisor.lock"
    assert lock_holder(path) is None
    with locked(path) as first, locked(path) as second:
        assert (first, second) == (True, False)
        holder = lock_holder(path)
        assert holder is not None
        assert (holder.pid, holder.alive()) == (os.getpid(), True)
    assert lock_holder(path) is None
    # As an older version left it.
    path.write_text("")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert lock_holder(path) is None


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks as NFS has them: exclusive ones only on what is open for writing."""
    lock_file = fcntl.flock

    def flock(file: int | IO[str], kind: int) -> None:
        writes = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if kind & fcntl.LOCK_EX and not writes:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock_file(file, kind)

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.usefixtures("nfs")
def test_a_home_on_nfs_has_its_locks(tmp_path: Path) -> None:
    path, stack = tmp_path / "supervisor.lock", Stack(Settings(home=tmp_path / "home"))
    with locked(path):
        assert lock_holder(path) == Record(os.getpid(), created(os.getpid()))
    assert lock_holder(path) is None
    lock = stack.place.run / "up.lock"
    with stack._alone(), lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_who_may_not_write_the_lock_holds_others_off_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, open_file = Stack(Settings(home=tmp_path)), os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return open_file(path, flags, mode)

    monkeypatch.setattr("deploy.stack.os.open", read_only)
    lock = stack.place.run / "up.lock"
    with stack._alone(), lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_record_is_read_back_as_written_and_a_torn_one_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "kafka.json"
    record = Record(pid=7, created=1.5, state="restarting", restarts=2, last_exit=-9, detail="x")

    record.write(path)
    assert read_record(path) == record

    path.write_text('{"pid": 7, "crea')
    assert read_record(path) is None
    assert read_record(tmp_path / "none.json") is None


def test_ended_child_that_nobody_waited_for_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    born = created(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not Record(pid=child.pid, created=born).alive()
    child.wait()


def test_members_are_known_by_home_and_part_even_without_their_parent(tmp_path: Path) -> None:
    environment = {**os.environ, MARK: mark(tmp_path, "taskmanager")}
    worker = subprocess.Popen(_IDLE, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    assert [process.pid for process in members(tmp_path, ["taskmanager"])] == [worker.pid]
    assert [process.pid for process in members(tmp_path)] == [worker.pid]
    assert members(tmp_path, ["kafka"]) == []
    assert members(tmp_path.parent) == []

    end(members(tmp_path), stop_signal=signal.SIGTERM, seconds=5)
    assert worker.wait() == -signal.SIGTERM


def test_owner_of_a_port_is_named_with_pid_and_folder() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        assert port_taken(port)
        assert f"(pid {os.getpid()}, in {os.getcwd()})" in str(port_owner(port))
    assert not port_taken(port)


@pytest.mark.parametrize("held", ["127.0.0.1", "127.0.0.2"])
def test_a_port_for_every_address_is_taken_where_any_has_it(held: str, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind((held, 0))
        listener.listen()
        port = listener.getsockname()[1]

        assert port_taken(port, "")
        assert port_taken(port, held)
        assert not port_taken(port, "127.0.0.3")
        settings = Settings(home=tmp_path, port_base=port - TASKMANAGER_METRICS_PORT)
        assert list(taskmanager(settings).taken_ports()) == [port]
    assert not port_taken(port, "")


def test_an_address_of_another_machine_is_no_taken_port() -> None:
    assert not port_taken(free_port(), "192.0.2.1")


def test_no_two_parts_want_the_same_port(tmp_path: Path) -> None:
    parts = all_parts(Settings(home=tmp_path))
    ports = [port for part in parts for port in part.ports]

    assert len(ports) == len(set(ports))


def test_settings_survive_the_way_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Settings(home=tmp_path, port_base=30_000, checkpoint_seconds=0.5)

    for name, value in given.environment().items():
        monkeypatch.setenv(name, value)

    assert Settings() == given


def test_broker_keeps_old_events_and_refuses_far_future_ones(tmp_path: Path) -> None:
    properties = server_properties(Settings(home=tmp_path, port_base=30_000), tmp_path)

    assert properties["log.retention.ms"] == "-1"
    assert properties["log.message.timestamp.after.max.ms"] == "3600000"
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["listeners"].startswith("PLAINTEXT://127.0.0.1:30092,")


def test_flink_listens_on_loopback_only_and_sets_no_job_jars(tmp_path: Path) -> None:
    options = configuration(Settings(home=tmp_path))

    addresses = {value for key, value in options.items() if key.endswith(("address", "host"))}
    assert addresses == {"127.0.0.1"}
    assert "pipeline.jars" not in options


def test_flinks_page_takes_no_jars_and_no_other_site_reads_its_answers(tmp_path: Path) -> None:
    options = configuration(Settings(home=tmp_path, port_base=30_000))

    assert options["web.submit.enable"] is False
    assert options["web.access-control-allow-origin"] == "http://127.0.0.1:30080"


def test_flinks_processes_write_temporary_files_to_folders_of_their_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    (tmp_path / "run").mkdir()

    assert configuration(settings)["io.tmp.dirs"] == str(tmp_path / "tmp" / "flink-client")
    for part in (jobmanager(settings), taskmanager(settings)):
        part.prepare()
        command = part.command()
        folder = tmp_path / "tmp" / part.name
        assert f"-Djava.io.tmpdir={folder}" in command
        assert f"io.tmp.dirs={folder}" in command


def test_files_of_settings_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "kappa_clickhouse_password").write_text("in a file")
    # As in a pod, where it leads elsewhere than in another.
    (tmp_path / "ca.crt").symlink_to(tmp_path / "secrets" / "kappa_clickhouse_password")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAPPA_SECRETS_DIR", "secrets")
    given = Settings(_env_file=None, home=Path("home"), ca_file="ca.crt").environment()
    monkeypatch.chdir("/")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    there = Settings(_env_file=None)
    assert (there.home, there.ca_file) == (tmp_path / "home", str(tmp_path / "ca.crt"))
    assert there.clickhouse_password.get_secret_value() == "in a file"
