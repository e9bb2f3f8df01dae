"""A rebuild whose new version has other columns: people see the old ones, then the new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import datasets
from tests.harness import Environment, create_topic, produce, register, rows, start_loader, wait_for
from tests.oracle import PER_MINUTE, judge
from tests.replay.running import SUBMIT, done, newest, project_with, readers, run

pytestmark = pytest.mark.long

IMPORT = "    Last,\n    Latest,\n    Mean,\n"
ERRORS = (
    '"errors": Count("status", ">=", 500, doc="Requests answered with a status of 500 or more.")'
)
OLD_COLUMNS = {
    IMPORT: f"    Max,\n{IMPORT}",
    ERRORS: '"longest_ms": Max("duration_ms", doc="Longest time on page.")',
    # All-time figures take theirs from the same.
    '        "errors": MEASURES["errors"],\n': "",
}


def test_columns_come_and_go_with_the_version_that_is_shown(
    empty: Environment, tmp_path: Path
) -> None:
    env = empty
    project = project_with(tmp_path, "jobs/page_views.py", OLD_COLUMNS)
    schema_id = register(env, datasets.V1)
    create_topic(env)
    sent = produce(env, datasets.dense_traffic(schema_id, events=3_000))
    start_loader(env)
    assert run(env, *SUBMIT, project=project).returncode == 0
    events = judge(sent, env.registered).aggregated.values()
    views, longest = len(events), max(event.duration_ms or 0 for event in events)
    errors = sum(event.status >= 500 for event in events)
    wait_for(
        lambda: seen(env, "sum(views), max(longest_ms)"),
        240,
        "version 1 is loaded",
        until=lambda found: found == (views, longest),
    )

    done(env, "build", "--yes")
    report = done(env, "verify")
    assert report["unexplained"] == 0
    changes = {view["view"]: sorted(view["schema_changes"]) for view in report["views"]}
    assert changes[PER_MINUTE] == [
        "errors is new: Int64",
        "longest_ms is gone: Nullable(Int64)",
    ]
    with readers(env, "SELECT sum(views) FROM page_views_per_minute", threads=2) as reading:
        done(env, "promote", "--yes")
        assert seen(env, "sum(errors), max(longest_ms)") == (errors, None)
        done(env, "rollback", "--yes")
        assert seen(env, "sum(errors), max(longest_ms)") == (None, longest)
        done(env, "promote", "--yes")
        done(env, "retire", "--now", "--yes")
    assert (dict(reading.failures), set(reading.counts())) == ({}, {(views,)})
    assert newest(env).state == "retired"
    assert seen(env, "sum(views), sum(errors)") == (views, errors)
    with pytest.raises(Exception, match="longest_ms"):
        seen(env, "max(longest_ms)")


def seen(env: Environment, columns: str) -> tuple[object, ...]:
    """Return what people see of the view's `columns`."""
    [row] = rows(env, f"SELECT {columns} FROM {env.settings.database}.{PER_MINUTE}")
    return row
