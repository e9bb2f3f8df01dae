"""The sample access log, from the file to ClickHouse, row for row as the oracle has it."""

from __future__ import annotations

import re

from jobs.cluster import Cluster
from jobs.submit import flink_name
from tests import datasets
from tests.harness import (
    Environment,
    failures,
    printed,
    produce,
    register,
    rows,
    start,
    start_loader,
)
from tests.oracle import PER_MINUTE, SITE, judge
from tests.settling import assert_status, settle

# Its closing quote is missing, and the producer passes it over.
_CUT_LINE = 8_898


def demo(env: Environment) -> str:
    """Return what `kappa demo` prints; the job that it starts is then that of `env`."""
    env.job_name = flink_name(env.settings, "page_views")
    said = printed(env, "demo")
    live = Cluster(env.settings.flink).live_job(env.job_name)
    assert live is not None
    env.job_id = live.id
    return said


def test_the_demo_makes_the_sample_log_the_oracles_rows(env: Environment) -> None:
    schema_id = register(env, datasets.V1)
    start_loader(env)
    said = demo(env)
    assert "9,999 in the topic = 9,999 aggregated + 0 late + 0 dead" in said
    assert re.search(r"/favicon\.ico +│ +807 │ +0 │ +16 ", said)
    verdict = settle(env)

    events = [e for n, e in enumerate(datasets.sample_events()) if n != _CUT_LINE]
    records = datasets.numbered(datasets.draft(event, schema_id) for event in events)
    assert verdict.views == judge(records, env.registered).views
    assert (len(verdict.aggregated), verdict.late, verdict.dead) == (9_999, {}, {})
    assert_status(env, verdict)
    assert failures(env) == 0


def test_the_shuffled_sample_log_gives_the_same_rows(env: Environment) -> None:
    schema_id = register(env, datasets.V1)
    start(env)
    produce(env, datasets.shuffled_sample_log(schema_id))
    verdict = settle(env)
    assert verdict.views == judge(datasets.sample_log(schema_id), env.registered).views
    [(total, pages)] = rows(
        env, f"SELECT sum(views), uniqExact(page_id) FROM {env.settings.database}.{PER_MINUTE}"
    )
    assert (total, pages) == (10_000, len({event["page_id"] for event in datasets.sample_events()}))
    assert len(verdict.views[SITE]) == 84
