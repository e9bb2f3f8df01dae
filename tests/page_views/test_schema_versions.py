"""Producers with older and newer schemas write into one topic, and the job goes on."""

from __future__ import annotations

from tests import datasets
from tests.harness import Environment, failures, job_state, produce, register, start
from tests.settling import settle


def test_a_second_schema_version_arrives_mid_stream(env: Environment) -> None:
    oldest = register(env, datasets.V0)
    current = register(env, datasets.V1)
    start(env)
    produce(env, datasets.dense_traffic(current, events=2_000, minutes=5))
    settle(env)
    newest = register(env, datasets.V2)
    later = datasets.EVENING + 5 * 60_000
    produce(env, datasets.mixed_versions((oldest, current, newest), events=3_000, start=later))
    verdict = settle(env)
    assert (len(verdict.aggregated), verdict.late, verdict.dead) == (5_000, {}, {})
    assert (failures(env), job_state(env)) == (0, "RUNNING")
