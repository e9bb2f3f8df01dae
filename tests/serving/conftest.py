"""An endpoint and a server for all tests of this room, and a browser."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy.settings import Settings
from tests.endpoint.running import Endpoint, free_port
from tests.serving.site import Database, Server, serving


@pytest.fixture(scope="session")
def serving_endpoint(
    tmp_path_factory: pytest.TempPathFactory, processes: None
) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("serving"))
    running.start()
    yield running
    if running.process is not None:
        running.stop()


def settings_over(endpoint: Endpoint, home: Path) -> Settings:
    """Return settings of a new namespace on `endpoint`; all other parts are down."""
    nobody = f"127.0.0.1:{free_port()}"
    return Settings(
        home=home,
        namespace=f"s{uuid.uuid4().hex[:8]}",
        **endpoint.access,
        kafka_bootstrap=nobody,
        flink_url=f"http://{nobody}",
        postgres_dsn=SecretStr(f"postgresql://postgres@{nobody}/postgres"),
    )


@pytest.fixture(scope="session")
def database(
    serving_endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database that the tests share; each makes views with names of its own."""
    made = Database(settings_over(serving_endpoint, tmp_path_factory.mktemp("home")))
    yield made
    made.drop()


@pytest.fixture(scope="session")
def server(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(database.settings, tmp_path_factory.mktemp("log") / "serving.log") as running:
        database.server = running
        yield running
