"""The alert rules: promtool's own tests, and that none goes without runbook or test."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("place", ["prometheus.yml", "compose/prometheus.yml"])
def test_prometheus_takes_the_configuration(place: str, tmp_path: Path) -> None:
    # In a container the rules lie beside it.
    for path in (DEPLOY / place, DEPLOY / "alerts.yml"):
        shutil.copy(path, tmp_path)
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_the_rules_hold_what_their_tests_expect() -> None:
    promtool("test", "rules", str(DEPLOY / "alerts_test.yml"))


def test_every_alert_fires_in_a_test() -> None:
    written = (DEPLOY / "alerts_test.yml").read_text()
    for alert in alerts():
        name = alert["alert"]
        fires = f'alertname="{name}", alertstate="firing", severity="{alert["labels"]["severity"]}"'
        assert fires in written or f"alertname: {name}\n        exp_alerts:" in written, name


def test_every_job_that_is_scraped_is_a_part_that_may_be_down() -> None:
    (down,) = (alert["expr"] for alert in alerts() if alert["alert"] == "PartDown")
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    told = re.fullmatch(r'up\{job=~"(.*)"\} == 0', down)
    assert told
    assert told[1].split("|") == [job["job_name"] for job in scraped]


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "warn")
        assert set(alert["annotations"]) == {"summary", "runbook"}
        assert alert["annotations"]["summary"].endswith("."), alert["alert"]
        assert "\n" not in alert["annotations"]["runbook"], alert["alert"]
