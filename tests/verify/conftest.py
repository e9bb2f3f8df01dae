"""A ClickHouse endpoint for all tests of this room, a database for each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import Settings
from tests.endpoint.running import Endpoint, free_port
from tests.verify.tables import Versions


@pytest.fixture(scope="session")
def clickhouse_endpoint(
    tmp_path_factory: pytest.TempPathFactory, processes: None
) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("verify"))
    running.start()
    yield running
    if running.process is not None:
        running.stop()


@pytest.fixture
def versions(clickhouse_endpoint: Endpoint, tmp_path: Path) -> Iterator[Versions]:
    settings = Settings(
        home=tmp_path,
        namespace=f"v{uuid.uuid4().hex[:8]}",
        **clickhouse_endpoint.access,
        registry_url=f"http://127.0.0.1:{free_port()}",
    )
    made = Versions(settings)
    yield made
    made.close()
