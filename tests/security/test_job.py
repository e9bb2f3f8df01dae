"""A whole job over TLS and SASL, on a small cluster of its own; and its secrets are nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from deploy.flink import client_environment, write_cluster_files
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import job_named
from jobs.plan import plan
from tests.harness import wait_for
from tests.security.conftest import PATIENCE, SECRET
from tests.security.servers import Authority, Schemas, free_port, registry

pytestmark = [pytest.mark.stack, pytest.mark.long]

REGISTRY_SECRET = "Qp4-another-secret-55"
# Submits the job and stays, as the cluster in its process ends with it.
_RUN = """
import signal
from jobs import page_views
from jobs.run import main
main(page_views.JOB)
signal.pause()
"""


@pytest.fixture
def settings(
    broker: dict[str, str],
    authority: Authority,
    secrets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """Settings of a namespace whose broker and registry ask for TLS and passwords, from files."""
    (secrets / "kappa_registry_password").write_text(REGISTRY_SECRET)
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(secrets))
    with registry(authority, Schemas("kappa", REGISTRY_SECRET)) as address:
        yield Settings(
            _env_file=None,
            home=tmp_path / "home",
            port_base=free_port() - 80,
            registry_url=address,
            registry_user="kappa",
            **broker,
        )


def test_a_job_runs_over_tls_and_sasl_and_shows_no_secret(
    settings: Settings, secrets: Path, tmp_path: Path
) -> None:
    write_cluster_files(settings)
    variables = settings.environment()
    # The secrets are to be read from their files alone.
    public = {name: text for name, text in variables.items() if not name.endswith("_PASSWORD")}
    kept = {name: text for name, text in os.environ.items() if not name.startswith("KAPPA_")}
    given = kept | client_environment(settings) | public | {"KAPPA_SECRETS_DIR": str(secrets)}
    log = tmp_path / "job.log"
    command = [sys.executable, "-c", _RUN, "--parallelism", "1", "--checkpoint-seconds", "1"]
    with log.open("wb") as output:
        job = subprocess.Popen(command, env=given, cwd=PROJECT_ROOT, stdout=output, stderr=output)
    try:
        sent = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "produce", "--limit", "500", "--json"],
            env=given,
            cwd=PROJECT_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert sent.returncode == 0, sent.stderr
        page_views = plan(job_named("page_views"), 1)
        for topic in page_views.topics.values():
            wait_for(partial(_committed, settings, topic), PATIENCE * 5, f"rows in {topic}")
        shown = _shown_by_flink(_logs(settings))
        commands = _commands(job.pid)
    finally:
        _end(job)
    logs = _logs(settings)
    assert "page_views" in shown
    for secret in (SECRET, REGISTRY_SECRET):
        assert secret not in shown
        assert secret not in commands
        assert secret not in logs + log.read_text(errors="replace")
        assert secret not in sent.stdout + sent.stderr


def _committed(settings: Settings, topic: str) -> bool:
    """Whether a reader of committed records finds any in `topic`."""
    own = {"group.id": "probe", "isolation.level": "read_committed", "enable.auto.commit": False}
    own |= {"log_level": 0}
    consumer = Consumer(settings.kafka_client | own)
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = consumer.poll(0.5)
            if found is not None and found.error() is None:
                return True
        return False
    finally:
        consumer.close()


def _shown_by_flink(log: str) -> str:
    """Return all that Flink's REST API, and so its pages, tell of cluster and job.

    A cluster within the client's process takes a free port, which its log tells.
    """
    address = re.search(r"Rest endpoint listening at (\S+)", log)
    assert address, "Flink's log does not tell its address"
    with httpx.Client(base_url=f"http://{address[1]}", trust_env=False, timeout=60) as client:
        jobs: list[dict[str, Any]] = client.get("/jobs/overview").json()["jobs"]
        paths = ["/jobs/overview", "/jobmanager/config", "/config", "/jobmanager/environment"]
        for one in jobs:
            job = f"/jobs/{one['jid']}"
            paths += [job, f"{job}/config", f"{job}/plan", f"{job}/exceptions"]
            paths += [f"{job}/checkpoints/config", f"{job}/accumulators"]
        return "\n".join(client.get(path).text for path in paths)


def _logs(settings: Settings) -> str:
    return "".join(path.read_text(errors="replace") for path in settings.home.rglob("*.log"))


def _commands(pid: int) -> str:
    """Return the command lines of the process and of all that it started."""
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    return "\n".join(" ".join(one.cmdline()) for one in family)


def _end(job: subprocess.Popen[bytes]) -> None:
    family = psutil.Process(job.pid).children(recursive=True)
    job.terminate()
    job.wait(30)
    for one in family:
        if one.is_running():
            one.kill()
