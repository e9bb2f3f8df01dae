"""A real Prometheus over the real stack: it reaches every part, and tells of one that stands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy.stack import Stack
from tests import datasets
from tests.harness import (
    Environment,
    completed_checkpoints,
    create_topic,
    environment,
    produce,
    register,
    submit_page_views,
    wait_for,
)
from tests.monitor.prometheus import DEPLOY, Prometheus, prometheus

PATIENCE = 120.0
_OURS = re.compile(r"\b(?:kappa|flink|clickhouse_endpoint)_\w+")
_RECORDED = re.compile(r"\b\w+:\w+(?::\w+)?\b")


@pytest.fixture(scope="module")
def job(stack: Stack) -> Iterator[Environment]:
    """A job that has read events and completed a checkpoint, so that it shows what it measures."""
    with environment(stack) as env:
        schema_id = register(env, datasets.V1)
        create_topic(env)
        submit_page_views(env)
        produce(env, datasets.sample_log(schema_id)[:2000])
        wait_for(lambda: completed_checkpoints(env) > 1, PATIENCE, "two checkpoints")
        yield env


@pytest.fixture(scope="module")
def watching(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the stack."""

    def address(offset: int) -> str:
        return f"127.0.0.1:{stack.settings.port(offset)}"

    with prometheus(tmp_path_factory.mktemp("prometheus"), address) as found:
        wait_for(found.ready, PATIENCE, "Prometheus is ready")
        yield found


def test_every_target_is_up(watching: Prometheus) -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    lasting = {job["job_name"] for job in jobs if "static_configs" in job}

    def health() -> dict[str, list[str]]:
        return {
            name: [f"{t['health']} {t['lastError']}".strip() for t in found]
            for name, found in watching.targets().items()
        }

    wait_for(health, PATIENCE, "all targets up", lambda h: h == {job: ["up"] for job in lasting})


def test_every_service_answers_the_monitor(watching: Prometheus) -> None:
    def told() -> dict[str, str]:
        found = watching.query("kappa_service_answers")
        return {one["metric"]["service"]: one["value"][1] for one in found}

    services = ("kafka", "postgres", "registry", "clickhouse")
    wait_for(told, PATIENCE, "all services", lambda found: found == dict.fromkeys(services, "1"))


def test_what_rules_and_dashboards_ask_for_is_there(watching: Prometheus, job: Environment) -> None:
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    asked = {name for text in _expressions() for name in _OURS.findall(text)}
    assert {name for text in _expressions() for name in _RECORDED.findall(text)} <= recorded
    missing = wait_for(
        lambda: sorted(asked - watching.exposed()), PATIENCE, "all metrics", lambda found: not found
    )
    assert missing == []


@pytest.mark.parametrize("offset", [123, 251, 252, 300])
def test_our_metrics_keep_to_prometheus_conventions(
    stack: Stack, job: Environment, offset: int
) -> None:
    shown = httpx.get(f"http://127.0.0.1:{stack.settings.port(offset)}/metrics", trust_env=False)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=shown.text, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_loader_that_stands_is_told(stack: Stack, watching: Prometheus) -> None:
    wait_for(lambda: watching.query('up{job="loader"} == 1'), PATIENCE, "the loader is up")
    pid = stack.wait_healthy("loader").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        told = wait_for(
            lambda: [one for one in watching.firing() if one.get("job") == "loader"],
            PATIENCE,
            "an alert that fires",
        )
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [(one["alertname"], one["severity"]) for one in told] == [("PartDown", "page")]
    wait_for(
        lambda: [one for one in watching.firing() if one.get("job") == "loader"],
        PATIENCE,
        "the alert is over",
        lambda found: not found,
    )


def _rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _expressions() -> list[str]:
    """Return every PromQL expression of the rules and the dashboards."""
    found = [rule["expr"] for rule in _rules()]
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        panels = json.loads(Path(path).read_text())["panels"]
        found += [target["expr"] for panel in panels for target in panel["targets"]]
    return found
