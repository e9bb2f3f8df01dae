"""The Python parts of the stack: ClickHouse endpoint, loader, monitor, API and dashboard."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import httpx

from deploy.loopback import ask
from deploy.parts import Part
from deploy.processes import LOOPBACK
from deploy.settings import Settings, reached

LOADER_METRICS_PORT, MONITOR_METRICS_PORT = 251, 252
_ENDPOINT, _LOADER = "deploy.clickhouse_endpoint", "sinks.loader"
_MONITOR, _SERVING = "deploy.monitor", "serving.server"

Place = tuple[str, int]
"""The host and the port on which a part listens."""


def services(settings: Settings) -> list[Part]:
    """Return the Python parts that this installation has; no ClickHouse where one is given."""
    found = []
    if settings.clickhouse_embedded and runnable(_ENDPOINT):
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
    return _service(
        settings,
        "clickhouse",
        "ClickHouse endpoint",
        _ENDPOINT,
        (LOOPBACK, port),
        lambda: _get((LOOPBACK, port), "/ping").text.startswith("Ok."),
    )


def _loader(settings: Settings) -> Part:
    place = settings.metrics_host, settings.port(LOADER_METRICS_PORT)
    after = ("kafka", "registry", "clickhouse")
    answers = _answers(place, "/metrics")
    return _service(settings, "loader", "ClickHouse loader", _LOADER, place, answers, after)


def _monitor(settings: Settings) -> Part:
    place = settings.metrics_host, settings.port(MONITOR_METRICS_PORT)
    answers = _answers(place, "/metrics")
    return _service(settings, "monitor", "Monitor", _MONITOR, place, answers, ("kafka", "postgres"))


def _serving(settings: Settings) -> Part:
    place = settings.serving_host, settings.serving_http_port
    answers = _answers(place, "/healthz")
    return _service(
        settings, "serving", "API and dashboard", _SERVING, place, answers, ("clickhouse",)
    )


def _service(
    settings: Settings,
    name: str,
    title: str,
    module: str,
    place: Place,
    healthy: Callable[[], bool],
    after: tuple[str, ...] = (),
) -> Part:
    return Part(
        name=name,
        title=title,
        ports=(place[1],),
        hosts={place[1]: place[0]},
        command=lambda: [sys.executable, "-m", module],
        healthy=healthy,
        environment=settings.environment(),
        after=after,
    )


def _answers(place: Place, path: str) -> Callable[[], bool]:
    return lambda: _get(place, path).status_code == 200


def _get(place: Place, path: str) -> httpx.Response:
    return ask(f"http://{reached(*place)}{path}")
