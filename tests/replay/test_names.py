"""What public names show while ClickHouse's clock is set back, on an endpoint of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import Settings
from replay import names
from replay.names import NotSwitched
from sinks.clickhouse import ClickHouse
from sinks.pointers import create_pointers
from sinks.queries import public_versions
from sinks.tables import TableColumn, TableSpec, create_table, create_view
from tests.endpoint.running import Endpoint

SPEC = TableSpec("pages", (TableColumn("page", "String"),), ("page",))
HOUR = 3_600


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory, processes: None) -> Iterator[Endpoint]:
    running = Endpoint(tmp_path_factory.mktemp("names"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def clickhouse(endpoint: Endpoint, tmp_path: Path) -> Iterator[ClickHouse]:
    """A database with two versions of a view, of which people see the first."""
    found = ClickHouse(
        Settings(
            home=tmp_path,
            namespace=f"n{uuid.uuid4().hex[:8]}",
            **endpoint.access,
        )
    )
    found.create_database()
    for version in (1, 2):
        found.command(create_table(SPEC, version))
        found.command(f"INSERT INTO pages_v{version} VALUES ('version {version}', 0, 0, now64(3))")
    found.command(create_view(SPEC, 1))
    found.command(create_pointers())
    yield found
    found.close()


def test_what_is_shown_stays_so_when_no_pointer_counts_any_more(clickhouse: ClickHouse) -> None:
    names.prepare(clickhouse, "pages", 1, 2, shown=1)
    assert seen(clickhouse) == [("version 1",)]
    names.switch(clickhouse, {"pages": 2}, 7)
    assert seen(clickhouse) == [("version 2",)]
    names.prepare(clickhouse, "pages", 1, 2, shown=2)
    set_back(clickhouse)
    assert seen(clickhouse) == [("version 2",)]
    assert public_versions(clickhouse) == {"pages": 2}


def test_a_switch_is_refused_that_would_take_place_when_nobody_expects_it(
    clickhouse: ClickHouse,
) -> None:
    names.prepare(clickhouse, "pages", 1, 2, shown=1)
    noted(clickhouse, "pages", 2, HOUR)
    for version in (1, 2):
        with pytest.raises(NotSwitched, match=r"pages last switched at .* it was set back\."):
            names.switch(clickhouse, {"pages": version}, 8)
    assert clickhouse.query("SELECT count() FROM view_pointers").rows == [(1,)]


def test_a_switch_of_other_views_is_no_reason_to_wait(clickhouse: ClickHouse) -> None:
    names.prepare(clickhouse, "pages", 1, 2, shown=1)
    noted(clickhouse, "orders", 2, HOUR)
    second = names.switch(clickhouse, {"pages": 2}, 8)
    assert abs(second - time.time()) < 60
    assert public_versions(clickhouse) == {"pages": 2}


def test_a_live_version_is_shown_whatever_the_clock_was(clickhouse: ClickHouse) -> None:
    noted(clickhouse, "pages", 2, HOUR)
    names.show(clickhouse, {"pages": 2}, 7)
    assert seen(clickhouse) == [("version 2",)]


def seen(clickhouse: ClickHouse) -> list[tuple[str]]:
    """Return what people see."""
    return clickhouse.query("SELECT page FROM pages").rows


def noted(clickhouse: ClickHouse, view: str, version: int, ahead: int) -> None:
    """Note a switch of `view` so many seconds ahead of ClickHouse's clock."""
    clickhouse.command(
        f"INSERT INTO view_pointers VALUES ('{view}', {version}, now() + {ahead}, 6)"
    )


def set_back(clickhouse: ClickHouse) -> None:
    """Leave the pointers as a clock has them that was set back by an hour."""
    rows = clickhouse.query("SELECT view, version FROM view_pointers").rows
    clickhouse.command("DROP TABLE IF EXISTS `view_pointers` SYNC")
    clickhouse.command(create_pointers())
    for view, version in rows:
        noted(clickhouse, view, version, HOUR)
