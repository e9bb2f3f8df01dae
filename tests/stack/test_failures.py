"""What a command says whose services do not answer, while the embedded stack is stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.commands import status
from deploy.console import CommandError
from deploy.failures import STOPPED, stopped_stack
from deploy.stack import Stack
from jobs.cluster import ClusterUnavailable
from replay.control import ControlUnavailable
from schemas.registry import RegistryError, RegistryUnavailable
from schemas.topics import KafkaUnavailable
from sinks.clickhouse import ClickHouseFailed

AWAY = {
    "KAPPA_CLICKHOUSE_PORT": ("9000", ClickHouseFailed("away")),
    "KAPPA_FLINK_URL": ("http://flink:8081", ClusterUnavailable("away")),
    "KAPPA_KAFKA_BOOTSTRAP": ("kafka:9092", KafkaUnavailable("away")),
    "KAPPA_POSTGRES_DSN": ("postgresql://db/kappa", ControlUnavailable("away")),
    "KAPPA_REGISTRY_URL": ("http://registry:8081", RegistryUnavailable("away")),
}
"""Where each service may be else, and what is raised when it does not answer."""


@pytest.fixture(autouse=True)
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded stack that does not run."""
    monkeypatch.setenv("KAPPA_HOME", str(tmp_path))


def said(cause: Exception | None) -> str:
    error = CommandError("no")
    error.__cause__ = cause
    return stopped_stack(error)


@pytest.mark.parametrize("name", AWAY)
def test_the_stack_is_named_where_the_service_is_its_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, error = AWAY[name]
    assert said(error) == STOPPED
    monkeypatch.setenv(name, elsewhere)
    assert said(error) == ""


@pytest.mark.parametrize(
    "cause", [None, ValueError("other"), ClickHouseFailed("refused", 60), RegistryError("refused")]
)
def test_what_answered_or_is_no_service_is_left_alone(cause: Exception | None) -> None:
    assert said(cause) == ""


def test_a_stack_that_runs_is_not_told_to_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "supervisor_pid", lambda _: 1)
    assert said(KafkaUnavailable("away")) == ""


def test_the_status_of_a_stopped_stack_says_how_to_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jobs.status.report", lambda _: [])
    monkeypatch.setattr("deploy.commands._names", lambda _: ((), "That is not known."))
    for as_json in (True, False):
        with pytest.raises(CommandError, match="`kappa up` starts it"):
            status(as_json=as_json)
        printed = capsys.readouterr().out
        if as_json:
            assert {one["state"] for one in json.loads(printed)["parts"]} == {"stopped"}
        else:
            assert "not known" not in printed
