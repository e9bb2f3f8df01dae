"""`kill -9` while a version is dropped: the same command goes on, and nothing else is touched."""

from __future__ import annotations

import pytest

from schemas.topics import topic_names
from tests.harness import Environment, rows
from tests.replay.running import (
    PUBLIC,
    control,
    done,
    events_loaded,
    kill_at,
    live_jobs,
    newest,
    one_version,
    refused,
    run,
)

_DROP = ("settle names", "stop job", "drop topics", "drop tables", "drop state")

pytestmark = pytest.mark.long


def test_a_promotion_killed_before_it_was_recorded_can_be_rolled_back(live: Environment) -> None:
    done(live, "build", "--yes")
    kill_at(live, "promote: switch", "promote", "--yes")
    assert newest(live).state == "built"
    done(live, "rollback", "--yes")
    assert one_version(live) == 1


def test_retire_killed_at_every_step_drops_the_old_version_only(live: Environment) -> None:
    done(live, "build", "--yes")
    done(live, "promote", "--yes")
    for step in _DROP:
        kill_at(live, f"retire: {step}", "retire", "--now", "--yes")
        assert one_version(live) == 2
    assert "is retiring and can't be" in refused(live, "rollback", "--yes")
    kill_at(live, "retire: record", "retire", "--now", "--yes")
    goes_on(live, "retire", "--now", "--yes")
    assert newest(live).state == "retired"
    assert_only(live, 2)


def test_abort_killed_at_every_step_drops_the_new_version_only(live: Environment) -> None:
    done(live, "build", "--yes")
    for step in _DROP[1:]:
        kill_at(live, f"abort: {step}", "abort", "--yes")
        assert one_version(live) == 1
    assert "is held by replay" in refused(live, "build", "--yes")
    kill_at(live, "abort: record", "abort", "--yes")
    goes_on(live, "abort", "--yes")
    assert newest(live).state == "aborted"
    assert_only(live, 1)
    assert done(live, "build", "--yes")["to_version"] == 3


def goes_on(env: Environment, *words: str) -> None:
    """Run `kappa replay` with `words` again; the end may be recorded already, and that is well."""
    ended = run(env, "replay", *words)
    assert ended.returncode == 0, ended.stderr


def assert_whole(env: Environment, version: int) -> None:
    """Assert that the tables of `version` hold each event of the sample once."""
    events_loaded(env, version)
    database = env.settings.database
    count = rows(env, f"SELECT count() FROM {database}.page_views_per_minute_v{version} FINAL")
    assert count == [(5_458,)]


def assert_only(env: Environment, version: int) -> None:
    """Assert that nothing of any other version is left: jobs, topics, tables, leases."""
    assert_whole(env, version)
    suffix = "" if version == 1 else f".v{version}"
    assert live_jobs(env) == [f"page_views{suffix}"]
    prefix = env.settings.topic_prefix
    topics = {t for t in topic_names(env.settings.kafka_client) if t.startswith(f"{prefix}views.")}
    assert topics == {f"{prefix}views.{view}.v{version}" for view in PUBLIC}
    tables = rows(
        env,
        "SELECT name FROM system.tables WHERE match(name, '_v[0-9]+$')"
        f" AND database = '{env.settings.database}'",
    )
    assert {name for (name,) in tables} == {f"{view}_v{version}" for view in PUBLIC}
    with control(env) as found:
        assert found.leases() == []
