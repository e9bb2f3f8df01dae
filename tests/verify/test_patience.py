"""A comparison may take longer than what people ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import Settings
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from tests.endpoint.running import Endpoint, free_port
from tests.verify.tables import Versions, counts, row

SLOW = "sleepEachRow(0.5) = new.views - 2"


@pytest.fixture
def hurried(tmp_path: Path, processes: None) -> Iterator[Versions]:
    running = Endpoint(tmp_path, limits={"KAPPA_ENDPOINT_MAX_EXECUTION_SECONDS": "1"})
    running.start()
    made = Versions(
        Settings(
            home=tmp_path,
            **running.access,
            registry_url=f"http://127.0.0.1:{free_port()}",
        )
    )
    yield made
    made.close()
    running.stop()


def test_a_comparison_takes_longer_than_a_readers_query(hurried: Versions) -> None:
    hurried.both([row("/a", n, 1) for n in range(5)], [row("/a", n, 2) for n in range(5)])
    reader = ClickHouse(hurried.settings, reader=True)
    with pytest.raises(ClickHouseFailed, match="Timeout exceeded"):
        reader.query("SELECT sleepEachRow(0.5) FROM pages_v1")
    reader.close()
    assert counts(hurried.compare(conditions=[SLOW])) == {"expected": 5}
