"""Totals of a few keys that get events all the time: compared while they move, and not forced."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    register,
    rows,
    start_loader,
    submit_page_views,
    wait_for,
)
from tests.oracle import Record
from tests.replay.running import DEADLINE, done, project_with, refused, run, shown, steadily

pytestmark = pytest.mark.long

HOT = ("/", "/news", "/about")
EACH = 6_000
COUNT = 'Count(doc="Requests for the page since the first.")'
# A tenth too few: more than what comes while a row is held, of so many as there are.
WRONG = {COUNT: COUNT.replace("Count(", 'Count("status", "<", 500, ')}


def test_hot_totals_are_promoted_without_force_and_a_wrong_rule_is_found(
    empty: Environment, tmp_path: Path
) -> None:
    env = empty
    schema_id = register(env, datasets.V1)
    create_topic(env)
    produce(env, [one for n in range(EACH) for one in requests(schema_id, n)])
    submit_page_views(env, ("page_stats",))
    start_loader(env)
    query = f"SELECT sum(views) FROM {env.settings.database}.page_stats"
    wait_for(lambda: rows(env, query)[0][0] == len(HOT) * EACH, DEADLINE, "all requests counted")

    with traffic(env, schema_id):
        done(env, "build", "page_stats", "--yes")
        report = done(env, "verify")
        assert (report["unexplained"], report["counts"]["unexplained"]) == (0, 0)
        view = stats(report)
        # No row stood still, and each was compared all the same.
        assert (view["rows"], view["moving_rows"]) == ({"old": 0, "new": 0}, 0)
        held = view["bracketed"]
        assert (held["rows"], held["not_held"]) == (len(HOT), {"avg_duration_ms": len(HOT)})
        assert set(held["sums"]) == {"views", "unique_users", "errors"}
        views = held["sums"]["views"]
        assert len(HOT) * EACH < views["least"] < views["new"] < views["most"]
        done(env, "promote", "--yes")
        assert set(shown(env).values()) == {2}
        done(env, "retire", "--now", "--yes")

        wrong = project_with(tmp_path, "jobs/page_views.py", WRONG)
        built = run(env, "replay", "build", "page_stats", "--yes", project=wrong)
        assert built.returncode == 0, built.stderr
        ended = run(env, "replay", "verify", "--json")
        assert ended.returncode == 1, ended.stderr
        view = stats(json.loads(ended.stdout))
        assert view["counts"] == {"expected": 0, "explained": 0, "unexplained": len(HOT)}
        assert {name: of["unexplained"] for name, of in view["columns"].items()} == {
            "views": len(HOT)
        }
        for one in view["samples"]:
            assert one["new"]["views"] < one["old"]["views"] < one["old_later"]["views"]
        assert "3 differences are unexplained" in refused(env, "promote", "--yes")
    assert set(shown(env).values()) == {2}


def stats(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a report says of `page_stats`."""
    (found,) = (view for view in report["views"] if view["view"] == "page_stats")
    return dict(found)


def requests(schema_id: int, number: int) -> list[Record]:
    """Return the `number`-th request for each hot page; 20 visitors make them in turn."""
    events = [
        {
            "event_id": f"{page}-{number}",
            "event_time": datasets.EVENING + 200 * number,
            "user_id": f"user-{number % 20}",
            "page_id": page,
            "duration_ms": 100 + 37 * number % 1_000,
            "status": 500 if number % 10 == 0 else 200,
        }
        for page in HOT
    ]
    return datasets.numbered(datasets.draft(event, schema_id) for event in events)


def traffic(env: Environment, schema_id: int) -> AbstractContextManager[None]:
    """Ask for each hot page five times a second while the block runs."""
    return steadily(lambda number: produce(env, requests(schema_id, number)), EACH)
