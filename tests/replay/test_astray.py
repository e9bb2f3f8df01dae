"""Public names that show another version than the live one are told of, and pointed back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from replay.astray import Astray, astray, by_replay
from replay.differences import Expectation
from replay.plan import plan_replay
from replay.records import ReplayRecord, ReplayState, VersionState
from sinks.clickhouse import ClickHouse
from sinks.queries import public_versions
from sinks.tables import TableColumn, TableSpec, create_table, create_view
from tests.harness import Environment, kappa
from tests.replay.running import control, done, journal
from tests.replay.test_plan import FACTS

LIVE, STANDBY, RETIRED = VersionState.LIVE, VersionState.STANDBY, VersionState.RETIRED
VIEWS = FACTS.views
PLAN = plan_replay(FACTS, Expectation(), from_earliest=False)


def test_a_view_is_astray_where_it_shows_another_version_than_the_live_one() -> None:
    states = {("a", 1): RETIRED, ("a", 2): LIVE, ("b", 1): STANDBY, ("b", 2): LIVE, ("c", 1): LIVE}
    found = astray(states, {"a": 1, "b": 1, "c": 1, "never_rebuilt": 4})
    assert found == (Astray("a", 1, 2), Astray("b", 1, 2, interrupted=True))
    assert found[0].sentence == (
        "a shows version 1, though version 2 is live: `kappa replay repoint` shows that again."
    )
    assert found[1].sentence.endswith("interrupted, the same command ends it.")


def test_a_view_that_is_not_there_yet_is_not_astray() -> None:
    assert astray({("a", 1): RETIRED, ("a", 2): LIVE}, {}) == ()


def test_what_was_replaced_by_hand_is_not_what_people_should_see() -> None:
    assert astray({("a", 1): LIVE, ("a", 3): LIVE}, {"a": 3}) == ()


def test_each_view_belongs_to_the_newest_replay_that_knows_its_live_version() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    first = ReplayRecord(1, "", "page_views", VIEWS, 2, ReplayState.RETIRED, PLAN, now, now)
    plan = replace(PLAN, from_versions={"per_minute": 2}, to_version=3)
    second = replace(first, id=2, views=("per_minute",), to_version=3, plan=plan)
    found = (Astray("per_minute", 1, 2), Astray("page_views_accounting", 1, 2), Astray("x", 1, 2))
    assert by_replay([second, first], found) == [
        (second, {"per_minute": 2}),
        (first, {"page_views_accounting": 2}),
    ]


@pytest.fixture
def clickhouse(empty: Environment) -> Iterator[ClickHouse]:
    """The namespace's database as the loader makes it anew: version 1 has the public names."""
    found = ClickHouse(empty.settings)
    found.create_database()
    for view in VIEWS:
        spec = TableSpec(view, (TableColumn("page", "String"),), ("page",))
        for version in (1, 2):
            found.command(create_table(spec, version))
        found.command(create_view(spec, 1))
    yield found
    found.close()


@pytest.mark.parametrize("state", [ReplayState.PROMOTED, ReplayState.RETIRED])
def test_names_are_pointed_back_after_clickhouse_lost_its_data(
    empty: Environment, clickhouse: ClickHouse, state: ReplayState
) -> None:
    with control(empty) as plane:
        replay = plane.begin(PLAN)
        old = RETIRED if state is ReplayState.RETIRED else STANDBY
        states = {(view, version): of for view in VIEWS for version, of in ((1, old), (2, LIVE))}
        plane.change(replay, state, states)

    told = kappa(empty, "status")["astray"]

    assert [(one["view"], one["shown"], one["live"]) for one in told] == [
        (view, 1, 2) for view in sorted(VIEWS)
    ]
    assert [one["view"] for one in done(empty, "repoint", "--yes")["repointed"]] == sorted(VIEWS)
    assert public_versions(clickhouse) == dict.fromkeys(VIEWS, 2)
    assert [(one.step, one.state) for one in journal(empty)][-1] == ("repoint: show", "done")
    assert kappa(empty, "status")["astray"] == []
    assert done(empty, "repoint", "--yes")["repointed"] == []
