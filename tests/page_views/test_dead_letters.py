"""Broken records become dead letters with their reason, and cost no good neighbour."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests import datasets
from tests.harness import (
    PANE_VIEWS,
    Environment,
    failures,
    kappa,
    produce,
    register,
    rows,
    start,
    wait_for,
)
from tests.oracle import SITE, Record
from tests.settling import assert_status, dead_letters, settle


def test_each_broken_record_costs_only_itself(env: Environment) -> None:
    schema_id = register(env, datasets.V1)
    nullable_id = register(env, datasets.NULLABLE_USER, subject=env.stream.prefixed("mistake"))
    start(env)
    records, reasons = datasets.broken_traffic(schema_id, nullable_id, unknown_id=10**6)
    produce(env, records)
    verdict = settle(env)
    assert verdict.dead == reasons
    assert_status(env, verdict)
    assert len(verdict.aggregated) == len(records) - len(reasons)
    assert failures(env) == 0

    counted = wait_for(
        lambda: rows(
            env,
            f"SELECT reason, count() FROM {env.settings.database}.dead_letters GROUP BY reason",
        ),
        30,
        "ClickHouse has every dead letter",
        until=lambda found: sum(count for _, count in found) >= len(reasons),
    )
    assert dict(counted) == Counter(reasons.values())


def test_a_flood_of_broken_records_stops_the_job_until_it_is_accepted(env: Environment) -> None:
    schema_id = register(env, datasets.V1)
    start(env)
    traffic = datasets.dense_traffic(schema_id, events=6_000)
    produce(env, traffic[:3_000])
    settle(env)
    newest = max(record.timestamp_ms for record in traffic[:3_000])
    flood = [Record(2, 0, newest, b"u", b"not a frame")] * 1_500
    produce(env, [*flood, *traffic[3_000:4_500]])

    def job() -> Any:
        return next(j for j in kappa(env, "status")["jobs"] if j["stream"] == env.stream.topic)

    told = wait_for(job, 120, "the status says why", until=lambda j: "dead letters" in j["failure"])
    assert f"of {env.stream.topic}, partition 2, are dead letters" in told["failure"]
    # However often it starts again, it gets no further.
    wait_for(lambda: failures(env), 120, "it was started again", until=lambda n: n >= 3)
    assert len(dead_letters(env)) < 1_000

    kappa(env, "cancel", "page_views")
    chosen = [word for view in PANE_VIEWS for word in ("--view", view)]
    [started] = kappa(env, "submit", "page_views", *chosen, "--accept-dead-letters")
    env.job_id = started["job_id"]
    produce(env, traffic[4_500:])
    verdict = settle(env, 120)
    assert len(verdict.dead) == len(flood)
    assert_status(env, verdict)

    # A rebuild comes by the same flood, and does not stop there.
    assert kappa(env, "replay", "build", SITE, "--yes")["state"] == "built"
    kappa(env, "replay", "abort", "--yes")
