"""What Flink's client is told when a job is submitted."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.settings import Settings
from jobs import submit as submitting
from jobs.submit import SubmissionFailed, submit
from jobs.upgrade import upgrade
from tests.flink_rest import flink


def test_a_job_keeps_its_checkpoints_where_the_cluster_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, f"JobID {'b' * 32}", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    kept = {"execution.checkpointing.dir": f"{tmp_path.as_uri()}/checkpoints/"}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, namespace="n", flink_url=url)
        submit(settings, "words", version=2)
    (command,) = commands
    given = dict(itertools.pairwise(command))
    own = f"{tmp_path.as_uri()}/checkpoints/n.words.v2"
    assert given["-D"] == f"execution.checkpointing.dir={own}"
    assert command.index("-D") < command.index("-py"), "what follows -py is the job's"
    assert given["-m"] == url.removeprefix("http://")


def test_a_password_in_a_file_is_no_variable_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        given.append(how["env"])
        return subprocess.CompletedProcess(command, 0, f"JobID {'b' * 32}", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    (tmp_path / "kappa_kafka_sasl_password").write_text("in a file")
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("KAPPA_REGISTRY_PASSWORD", "in a variable")
    with flink("a" * 32, "orders", 5, "RUNNING") as url:
        submit(Settings(_env_file=None, home=tmp_path / "home", flink_url=url), "words")
    (environment,) = given
    # The job would refer to a variable, which the TaskManagers on other machines do not have.
    assert "KAPPA_KAFKA_SASL_PASSWORD" not in environment
    assert environment["KAPPA_SECRETS_DIR"] == str(tmp_path)
    assert environment["KAPPA_REGISTRY_PASSWORD"] == "in a variable"


def test_a_job_in_a_cluster_of_its_own_is_not_upgraded_into_another(tmp_path: Path) -> None:
    asked: list[str] = []
    with (
        flink("a" * 32, "orders.v2", 5, "RUNNING") as first,
        flink("b" * 32, "orders", 5, "RUNNING", asked) as own,
    ):
        settings = Settings(_env_file=None, home=tmp_path, flink_url=f"{first},{own}")
        with pytest.raises(SubmissionFailed, match=f"orders belongs to .* {own} .*FlinkDeployment"):
            upgrade(settings, "orders")
    assert not any("stop" in path or "savepoint" in path for path in asked)


@pytest.mark.parametrize("state", ["FINISHED", "CANCELED", "FAILED"])
def test_a_job_that_a_cluster_of_its_own_would_start_again_is_not_started(
    tmp_path: Path, state: str
) -> None:
    with (
        flink("a" * 32, "orders.v2", 5, "RUNNING") as first,
        flink("b" * 32, "orders", 5, state) as own,
    ):
        settings = Settings(_env_file=None, home=tmp_path, flink_url=f"{first},{own}")
        with pytest.raises(SubmissionFailed, match=f"orders belongs to .* {own} .*FlinkDeployment"):
            submit(settings, "orders", restore="none")
