"""Broken records become dead letters with their reason, and cost no good neighbour."""

from __future__ import annotations

from collections import Counter

from tests import datasets
from tests.harness import Environment, failures, produce, register, rows, start, wait_for
from tests.settling import assert_status, settle


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
