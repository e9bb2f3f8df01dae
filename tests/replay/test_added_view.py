"""A view is added while its job runs: beside it at first, then in one job with the others."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import fastavro
import pytest

from jobs.cluster import Cluster
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    failures,
    produce,
    register,
    rows,
    start_loader,
    submit_page_views,
    wait_for,
)
from tests.oracle import MINUTE, PER_MINUTE, Record, judge
from tests.replay.running import DEADLINE, await_rows, live_jobs, project_with, run, shown

pytestmark = pytest.mark.long

DECLARATION = """
VIEWS_PER_COUNTRY = WindowView(
    name="views_per_country",
    stream=PAGE_VIEWS,
    dimensions=("country",),
    window=Tumbling(timedelta(minutes=1)),
    measures={"views": Count(doc="Requests from the country.")},
    description="Where requests come from, minute by minute.",
)

JOB = Job("""
ADDED = {
    "\nJOB = Job(": DECLARATION,
    "        TOP_PAGES_PER_HOUR,\n": "        VIEWS_PER_COUNTRY,\n",
}
_SCHEMA = fastavro.parse_schema(datasets.V1)


def test_a_view_is_added_beside_a_running_job_and_joins_it_with_the_next_replay(
    empty: Environment, tmp_path: Path
) -> None:
    env = empty
    schema_id = register(env, datasets.V1)
    create_topic(env)
    before = produce(env, datasets.dense_traffic(schema_id, events=3_000))
    first = submit_page_views(env, (PER_MINUTE,))
    start_loader(env)
    await_rows(env, before)

    project = project_with(tmp_path, "jobs/page_views.py", ADDED)
    asked = ("submit", "page_views", "--view=views_per_country", "--version=2")
    added = run(env, *asked, project=project)
    assert added.returncode == 0, added.stderr
    later = datasets.dense_traffic(
        schema_id, events=1_000, start=datasets.EVENING + 40 * MINUTE, seed=3
    )
    everything = before + produce(env, later)
    await_rows(env, everything)
    await_countries(env, everything)
    running = Cluster(env.settings.flink).live_job(first.name)
    assert running
    assert running.id == first.job_id
    assert failures(env) == 0
    assert shown(env)[PER_MINUTE] == 1
    assert shown(env)["views_per_country"] == 2

    united = run(env, "replay", "run", "--yes", project=project)
    assert united.returncode == 0, united.stdout + united.stderr
    assert {shown(env)[view] for view in (PER_MINUTE, "views_per_country")} == {3}
    retired = run(env, "replay", "retire", "--now", "--yes", project=project)
    assert retired.returncode == 0, retired.stderr
    assert live_jobs(env) == ["page_views.v3"]
    await_rows(env, everything)
    await_countries(env, everything)


def await_countries(env: Environment, sent: Iterable[Record]) -> None:
    """Wait until the added view holds exactly the rows of `sent`, those before it too."""
    taken = judge(sent, env.registered).aggregated
    windows = Counter(
        (record.timestamp_ms // MINUTE * MINUTE, country(record))
        for record in sent
        if record.place in taken
    )
    expected = sorted((*window, views) for window, views in windows.items())
    wait_for(
        lambda: rows(
            env,
            "SELECT toUnixTimestamp64Milli(window_start) AS at, country, views "
            f"FROM {env.settings.database}.views_per_country ORDER BY at, country",
        ),
        DEADLINE,
        f"views_per_country has its {len(expected)} rows",
        until=lambda found: found == expected,
    )


def country(record: Record) -> str:
    """Return the country in a record of `datasets.V1`, an empty text for none."""
    assert record.value
    event = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), _SCHEMA, None)
    assert isinstance(event, dict)
    return event["country"] or ""
