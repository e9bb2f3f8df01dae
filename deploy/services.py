"""The Python parts of the stack: ClickHouse endpoint, loader, monitor, API and dashboard."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import httpx

from deploy.parts import Part
from deploy.settings import Settings

LOADER_METRICS_PORT, MONITOR_METRICS_PORT = 251, 252
_ENDPOINT, _LOADER = "deploy.clickhouse_endpoint", "sinks.loader"
_MONITOR, _SERVING = "deploy.monitor", "serving.server"


def services(settings: Settings) -> list[Part]:
    """Return the Python parts that this installation has."""
    found = []
    if runnable(_ENDPOINT):
        found.append(_clickhouse(settings))
    if runnable(_LOADER):
        found.append(_loader(settings))
    if runnable(_MONITOR):
        found.append(_monitor(settings))
    if runnable(_SERVING):
        found.append(_serving(settings))
    return found


def runnable(module: str) -> bool:
    """Whether `python -m module` finds something to run; nothing of it is imported."""
    spec = importlib.util.find_spec(module)
    if spec is None:
        return False
    folders = spec.submodule_search_locations
    return folders is None or any((Path(folder) / "__main__.py").exists() for folder in folders)


def _clickhouse(settings: Settings) -> Part:
    port = settings.clickhouse_http_port
    return Part(
        name="clickhouse",
        title="ClickHouse endpoint",
        ports=(port,),
        command=lambda: [sys.executable, "-m", _ENDPOINT],
        healthy=lambda: _get(port, "/ping").text.startswith("Ok."),
        environment=settings.environment(),
    )


def _loader(settings: Settings) -> Part:
    port = settings.port(LOADER_METRICS_PORT)
    return Part(
        name="loader",
        title="ClickHouse loader",
        ports=(port,),
        command=lambda: [sys.executable, "-m", _LOADER],
        healthy=lambda: _get(port, "/metrics").status_code == 200,
        environment=settings.environment(),
        after=("kafka", "registry", "clickhouse"),
    )


def _monitor(settings: Settings) -> Part:
    port = settings.port(MONITOR_METRICS_PORT)
    return Part(
        name="monitor",
        title="Monitor",
        ports=(port,),
        command=lambda: [sys.executable, "-m", _MONITOR],
        healthy=lambda: _get(port, "/metrics").status_code == 200,
        environment=settings.environment(),
        after=("kafka", "postgres"),
    )


def _serving(settings: Settings) -> Part:
    port = settings.serving_http_port
    return Part(
        name="serving",
        title="API and dashboard",
        ports=(port,),
        command=lambda: [sys.executable, "-m", _SERVING],
        healthy=lambda: _get(port, "/healthz").status_code == 200,
        environment=settings.environment(),
        after=("clickhouse",),
    )


def _get(port: int, path: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2)
