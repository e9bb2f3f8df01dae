"""What a plan counts as needed and as free. No stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from deploy.settings import Settings
from jobs.catalogue import UnknownJob, job_named
from jobs.plan import plan
from replay.facts import _bytes, _bytes_free, chosen_job
from sinks.clickhouse import Answer, ClickHouse

VIEW = "page_views_per_minute"


class Disks:
    """A server with a table of one view: of its own, or the local part of a cluster's."""

    database = "views"

    def __init__(self, table: str) -> None:
        self.table = table

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        if "system.disks" in sql:
            return Answer((), [(9_000,)])
        assert parameters is not None
        return Answer((), [(7_000 if self.table in parameters["tables"] else None,)])


def test_a_views_size_is_that_of_its_parts_on_a_cluster_too() -> None:
    job_plan = plan(job_named("page_views").within(""), 1, (VIEW,))
    for table in (f"{VIEW}_v1", f"{VIEW}_v1_local"):
        assert _bytes(cast(ClickHouse, Disks(table)), job_plan, {VIEW: 1}) == (7_000, 9_000)


def test_the_homes_disk_counts_only_where_topics_and_state_are_on_it(tmp_path: Path) -> None:
    embedded = Settings(home=tmp_path / "home")
    assert _bytes_free(embedded, 9_000) == 9_000
    assert 0 < _bytes_free(embedded, 1 << 80) < 1 << 80
    elsewhere = Settings(
        home=tmp_path,
        kafka_bootstrap="kafka:9092",
        registry_url="http://registry:8080",
        flink_url="http://flink:8081",
        postgres_dsn=SecretStr("postgresql://control"),
    )
    assert _bytes_free(elsewhere, 1 << 80) == 1 << 80


def test_a_job_that_is_none_is_told_of_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replay.facts.live_views", lambda _: pytest.fail("ClickHouse is asked"))
    with pytest.raises(UnknownJob, match='"nosuch" is no job'):
        chosen_job(Settings(), (), "nosuch")
