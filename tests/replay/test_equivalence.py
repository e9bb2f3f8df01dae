"""A view built live through crashes, rebuilt by replay and computed by the oracle is the same."""

from __future__ import annotations

import os
import signal

from deploy.stack import Stack
from tests import datasets
from tests.harness import (
    Environment,
    completed_checkpoints,
    failures,
    produce,
    register,
    start,
    view_rows,
    wait_for,
)
from tests.oracle import Record, Verdict
from tests.replay.running import Place, await_oracle_rows, done, letters
from tests.settling import settle

Letters = dict[Place, str]


def test_live_rebuilt_and_computed_are_the_same_rows(empty: Environment, stack: Stack) -> None:
    schema_id = register(empty, datasets.V1)
    start(empty)
    build_live_through_a_crash(empty, stack, traffic(schema_id))
    verdict = settle(empty, 120)
    assert verdict.late
    assert verdict.dead

    done(empty, "build", "--yes")

    await_oracle_rows(empty, verdict, 2, 60)
    for view in verdict.views:
        assert view_rows(empty, f"{view}_v1 FINAL") == view_rows(empty, f"{view}_v2 FINAL")
    assert_no_event_is_judged_otherwise(empty, verdict)


def traffic(schema_id: int) -> list[Record]:
    """Return events in time, late within and beyond what is allowed, and broken; then the edges."""
    mixed = datasets.dense_traffic(
        schema_id,
        events=12_000,
        late_share=0.05,
        broken_share=0.01,
        start=datasets.EVENING - 4 * datasets.HOUR,
        seed=11,
    )
    return [*mixed, *datasets.late_events(schema_id)]


def build_live_through_a_crash(env: Environment, stack: Stack, records: list[Record]) -> None:
    """Write `records` while the job runs, and kill its TaskManager in the middle of them."""
    produce(env, records[:5_000])
    before = completed_checkpoints(env)
    wait_for(lambda: completed_checkpoints(env) > before, 60, "a checkpoint completes")
    pid = stack.wait_healthy("taskmanager", 300).pid
    assert pid is not None
    produce(env, records[5_000:9_000])
    os.kill(pid, signal.SIGKILL)
    produce(env, records[9_000:])
    stack.wait_healthy("taskmanager", 300, other_than=pid)
    wait_for(lambda: failures(env), 60, "Flink has noticed the crash")


def assert_no_event_is_judged_otherwise(env: Environment, verdict: Verdict) -> None:
    """Assert that late and dead events are the same ones everywhere; name those that are not."""
    stream = env.stream
    lates = [
        letters(env, stream.late_topic(version), "window_start", "window_end") for version in (1, 2)
    ]
    deads = [letters(env, stream.dead_letter_topic(version), "reason") for version in (1, 2)]
    oracle_late = {place: f"{start} {end}" for place, (start, end) in verdict.late.items()}
    assert differing(oracle_late, *lates) == {}
    assert differing(verdict.dead, *deads) == {}


def differing(oracle: Letters, live: Letters, rebuilt: Letters) -> dict[Place, tuple[object, ...]]:
    """Return the events that are not the same in all three: what oracle, live and replay say."""
    places = oracle.keys() | live.keys() | rebuilt.keys()
    said = {p: (oracle.get(p), live.get(p), rebuilt.get(p)) for p in places}
    return {place: words for place, words in said.items() if len(set(words)) > 1}
