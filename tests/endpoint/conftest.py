"""One endpoint for all tests of a session that leave it running, and fresh ones for the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endpoint.running import Endpoint

_names = itertools.count(1)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory, processes: None) -> Iterator[Endpoint]:
    """A running endpoint, shared: a test makes tables of its own and leaves the process be."""
    named = {"KAPPA_CLICKHOUSE_NAMES": "clickhouse.example.org, other.example.org"}
    running = Endpoint(tmp_path_factory.mktemp("endpoint"), limits=named)
    running.start()
    yield running
    if running.process is not None:
        running.stop()


@pytest.fixture
def table(endpoint: Endpoint) -> str:
    """The name of an empty table `(k UInt64, name String)` of the test's own."""
    name = f"t{next(_names)}"
    endpoint.text(f"CREATE TABLE {name} (k UInt64, name String) ENGINE = MergeTree ORDER BY k")
    return name


@pytest.fixture
def fresh(tmp_path: Path, processes: None) -> Iterator[Callable[..., Endpoint]]:
    """A function that starts an endpoint of the test's own, given limits by name."""
    started: list[Endpoint] = []

    def start(**limits: object) -> Endpoint:
        named = {f"KAPPA_ENDPOINT_{name.upper()}": str(value) for name, value in limits.items()}
        running = Endpoint(tmp_path / f"home{len(started)}", limits=named)
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        if running.process is not None:
            running.stop()
