"""`kappa doctor` finds what is not well, and says what to do about it."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from deploy import cli, console, demo, failures
from deploy.console import CommandError
from deploy.doctor import findings
from deploy.doctor.findings import GIB, Finding, Verdict
from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from schemas.topics import KafkaUnavailable

WELL, WARN, BAD = Verdict.WELL, Verdict.WARN, Verdict.BAD
SERVICES = ("kafka", "registry", "flink", "clickhouse", "postgres")


@pytest.mark.parametrize(
    ("finding", "verdict", "found"),
    [
        (findings.disk(GIB // 2, "/d"), BAD, "0.5 GiB free in /d"),
        (findings.disk(2 * GIB, "/d"), WARN, "2.0 GiB free in /d"),
        (findings.disk(6 * GIB, "/d"), WELL, "6.0 GiB free in /d"),
        (findings.memory(4 * GIB, 5 * GIB), WARN, "4.0 GiB available, 5.0 GiB needed"),
        (findings.memory(5 * GIB, 5 * GIB), WELL, "5.0 GiB available, 5.0 GiB needed"),
        (findings.clock("x", -0.4), WELL, "-0.4 s"),
        (findings.clock("x", 2), WARN, "+2.0 s"),
        (findings.clock("x", -61), BAD, "-61.0 s"),
        (findings.versions({"a": "1", "b": "2"}, {"a": "1", "b": "2"}), WELL, "2 as pinned"),
        (findings.flink("2.2.1", "2.2.1", "Flink 2.2.1"), WELL, "Flink 2.2.1"),
        (findings.flink("2.1.0", "2.2.1", "Flink 2.1.0"), BAD, "Flink 2.1.0"),
        (
            findings.settings_given(["PATH", "A_PORT"], ["A_PORT"]),
            WELL,
            "1 given",
        ),
        (
            findings.settings_given(["KAPPA_CA_FIEL", "KAPPA_X"], ["KAPPA_CA_FILE"]),
            WARN,
            "KAPPA_CA_FIEL unknown and ignored",
        ),
        (
            findings.versions({"a": "2", "b": None}, {"a": "1", "b": "2"}),
            BAD,
            "a 2 instead of 1, b missing instead of 2",
        ),
    ],
)
def test_each_figure_is_judged(finding: Finding, verdict: Verdict, found: str) -> None:
    assert (finding.verdict, finding.found) == (verdict, found)
    assert bool(finding.remedy) == (verdict is not WELL)


def doctor(settings: Settings) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Return the exit code of `kappa doctor`, its findings by subject, and what it complained."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "doctor", "--json"],
        env=os.environ | settings.environment(),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found = json.loads(done.stdout)["findings"]
    return done.returncode, {one["subject"]: one for one in found}, done.stderr


CLOCKS = ("clock of clickhouse", "clock of postgres")


@pytest.mark.stack
def test_a_running_stack_is_well(stack: Stack) -> None:
    code, found, complaint = doctor(stack.settings)
    assert (code, complaint) == (0, "")
    wanted = (*SERVICES, "python", "java", "packages", "ports", *CLOCKS)
    assert {name: found[name]["verdict"] for name in wanted} == dict.fromkeys(wanted, "well")
    assert f"slots free, at {stack.settings.flink}" in found["flink"]["found"]


def test_a_port_in_use_and_services_that_are_gone_are_told_with_a_remedy(
    own_settings: Settings, listener: socket.socket
) -> None:
    port = own_settings.port(432)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    code, found, complaint = doctor(own_settings)
    assert code == 1
    assert found["ports"]["verdict"] == "bad"
    assert f"{port} (" in found["ports"]["found"]
    assert str(os.getpid()) in found["ports"]["found"]
    assert "KAPPA_PORT_BASE" in found["ports"]["remedy"]
    for name in SERVICES:
        assert found[name]["verdict"] == "bad", found[name]
        assert f"KAPPA_{name.upper()}_" in found[name]["remedy"]
    assert complaint.endswith("see above what to do.\n")
    assert complaint.startswith("error:"), "a client's own words would stand before ours"


def test_with_services_elsewhere_nothing_is_asked_of_the_embedded_stack(
    own_settings: Settings,
) -> None:
    elsewhere = own_settings.model_copy(
        update={
            "kafka_bootstrap": f"127.0.0.1:{own_settings.port(1)}",
            "registry_url": f"http://127.0.0.1:{own_settings.port(2)}",
            "flink_url": f"http://127.0.0.1:{own_settings.port(3)}",
            "postgres_dsn": SecretStr(f"postgresql://kappa@127.0.0.1:{own_settings.port(4)}/kappa"),
        }
    )
    _, found, _ = doctor(elsewhere)
    assert set(found) == {"settings", "python", "java", "packages", "disk", *SERVICES}


def test_a_setting_that_cant_be_read_is_one_sentence(own_settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "status"],
        env=os.environ | own_settings.environment() | {"KAPPA_PARALLELISM": "many"},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: KAPPA_PARALLELISM: input should be a valid integer")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/srv/.kappa/run"),
            "error: /srv/.kappa/run: permission denied; be the user whose it is, or choose another "
            "home with KAPPA_HOME=…\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: no space left on device; make room, or choose a home on a larger disk with "
            "KAPPA_HOME=…\n",
        ),
    ],
)
def test_a_home_that_cant_be_written_is_one_sentence(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr(cli, "app", refuse)
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    monkeypatch.setattr(console, "ERR", Console(stderr=True, width=200))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == said


def kappa(folder: Path, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        env=os.environ | {"KAPPA_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("place", ["file", "file/below"])
@pytest.mark.parametrize("command", ["up", "down"])
def test_a_home_that_is_no_folder_is_one_sentence(
    command: str, place: str, tmp_path: Path, processes: None
) -> None:
    (tmp_path / "file").touch()
    done = kappa(tmp_path, command, home=tmp_path / place)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path / place}/run")
    assert done.stderr.endswith(
        ": not a directory; choose a home that can be a folder with KAPPA_HOME=…\n"
    )


def test_what_is_lost_in_a_home_is_no_mistake_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPPA_HOME", str(tmp_path))
    lost = FileNotFoundError(errno.ENOENT, "No such file or directory", str(tmp_path / "run"))
    assert failures.of_home(lost) == ""
    monkeypatch.setenv("KAPPA_HOME", str(tmp_path / "run"))
    assert failures.of_home(lost) != ""
    lost.filename = str(tmp_path / "elsewhere")
    assert failures.of_home(lost) == ""


def test_a_mistyped_setting_is_told_of_wherever_it_is_given(
    tmp_path: Path, processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPPA_PARALELISM", "3")
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(tmp_path))
    (tmp_path / ".env").write_text("KAPPA_NAMESPCE=a\n")
    (tmp_path / "kappa_clickhouse_pasword").touch()
    done = kappa(tmp_path, "settings", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["variable"] == "KAPPA_HOME"
    for typo, name in (
        ("KAPPA_PARALELISM", "KAPPA_PARALLELISM"),
        ("KAPPA_NAMESPCE", "KAPPA_NAMESPACE"),
        ("KAPPA_CLICKHOUSE_PASWORD", "KAPPA_CLICKHOUSE_PASSWORD"),
    ):
        assert f"did you mean {name} for {typo}?" in done.stderr


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.app(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kappa-views {metadata.version('kappa-views')}\n"


def test_settings_that_are_no_text_are_one_sentence(tmp_path: Path, processes: None) -> None:
    (tmp_path / ".env").write_bytes(b"KAPPA_NAMESPACE=\xff\n")
    done = kappa(tmp_path, "settings", home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    said = f"{tmp_path}/.env is no text in UTF-8; write its settings anew."
    assert done.stderr == f"error: {said}\n"


def test_a_demo_whose_kafka_is_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Settings) -> int:
        raise KafkaUnavailable("Kafka does not answer.")

    monkeypatch.setattr(demo, "up", lambda **_: None)
    monkeypatch.setattr(demo, "_events", refuse)
    with pytest.raises(CommandError, match=r"^Kafka does not answer\.$"):
        demo.run(Settings(_env_file=None, home=tmp_path))
