"""A real Prometheus on a free port, with the project's configuration, for a test to ask."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from deploy.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
_DEFAULT_BASE = 18_000


class Prometheus:
    """A running Prometheus; every answer is what its HTTP API gives."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)

    def ready(self) -> bool:
        return self._http.get("/-/ready").status_code == 200

    def query(self, expression: str) -> list[dict[str, Any]]:
        found = self._api("/api/v1/query", query=expression)["result"]
        return list(found)

    def targets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the active targets by job."""
        found: dict[str, list[dict[str, Any]]] = {}
        for target in self._api("/api/v1/targets")["activeTargets"]:
            found.setdefault(target["labels"]["job"], []).append(target)
        return found

    def firing(self) -> list[dict[str, str]]:
        """Return the labels of the alerts that fire."""
        alerts = self._api("/api/v1/alerts")["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def exposed(self) -> set[str]:
        """Return the names of all metrics that some target exposes, also those without a value."""
        names = set(self._api("/api/v1/label/__name__/values"))
        families = set(self._api("/api/v1/metadata"))
        return names | families | {f"{family}_total" for family in families}

    def _api(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def prometheus(folder: Path, address: Callable[[int], str]) -> Iterator[Prometheus]:
    """Run Prometheus on the project's configuration until the end of the block.

    `address` gives the host and port of the embedded stack's port at that offset. What is waited
    for in earnest is waited for a second here.
    """
    text = (DEPLOY / "prometheus.yml").read_text()
    ports = re.compile(rf"127\.0\.0\.1:({_DEFAULT_BASE // 1000}\d{{3}})\"\]$", re.MULTILINE)
    text = ports.sub(lambda found: f'{address(int(found[1]) - _DEFAULT_BASE)}"]', text)
    text = re.sub(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s", r"\1: 1s", text)
    (folder / "prometheus.yml").write_text(text)
    rules = re.sub(r"^( +for:) .*$", r"\1 2s", (DEPLOY / "alerts.yml").read_text(), flags=re.M)
    (folder / "alerts.yml").write_text(rules)
    port = _free_port()
    command = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    assert shutil.which("prometheus"), "install Debian's package prometheus"
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
