"""An old version goes on with the code it was submitted with, though the cluster restarts."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from deploy.stack import Stack
from jobs.submit import cancel
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    register,
    start_loader,
    submit_page_views,
    topic_rows,
    view_rows,
    wait_for,
)
from tests.oracle import MINUTE, SITE
from tests.replay.running import kill_at, project_with, run, shown

BOUND = '"errors": Count("status", ">=", 400'
STATUSES = (200, 400, 404, 500)
# `>` in the place of `>=` runs in Python workers, the bound is in the plan that the client makes.
OLD_ERRORS, NEW_ERRORS = 2, 1

pytestmark = pytest.mark.stack


def test_a_version_computes_after_a_restart_what_it_did_before_the_code_changed(
    empty: Environment, stack: Stack, tmp_path: Path
) -> None:
    env, old = empty, old_project(tmp_path)
    schema_id = register(env, datasets.V1)
    create_topic(env)
    submitted = run(env, "submit", "page_views", f"--view={SITE}", project=old)
    assert submitted.returncode == 0, submitted.stderr

    visits(env, datasets.EVENING, schema_id)
    await_errors(env, {datasets.EVENING: OLD_ERRORS})
    pid = stack.wait_healthy("jobmanager", 300).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    stack.wait_healthy("jobmanager", 300, other_than=pid)
    visits(env, datasets.EVENING + MINUTE, schema_id)
    await_errors(env, {datasets.EVENING: OLD_ERRORS, datasets.EVENING + MINUTE: OLD_ERRORS})


def test_a_rebuild_that_goes_on_with_other_code_keeps_that_which_it_began_with(
    empty: Environment, tmp_path: Path
) -> None:
    env, old = empty, old_project(tmp_path)
    schema_id = register(env, datasets.V1)
    create_topic(env)
    visits(env, datasets.EVENING, schema_id)
    submit_page_views(env, (SITE,))
    start_loader(env)
    await_errors(env, {datasets.EVENING: NEW_ERRORS}, f"{SITE}_v1 FINAL")
    wait_for(lambda: shown(env), 120, "people see it", until=lambda names: len(names) == 2)

    kill_at(env, "read", "build", SITE, "--yes", project=old)
    cancel(env.settings, f"{env.job_name}.v2")
    visits(env, datasets.EVENING + MINUTE, schema_id)
    ended = run(env, "replay", "build", SITE, "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "it goes on with the code of then" in ended.stderr
    minutes = (datasets.EVENING, datasets.EVENING + MINUTE)
    await_errors(env, dict.fromkeys(minutes, OLD_ERRORS), f"{SITE}_v2 FINAL")
    await_errors(env, dict.fromkeys(minutes, NEW_ERRORS), f"{SITE}_v1 FINAL")


def old_project(tmp_path: Path) -> Path:
    """Return the project with the rule of before."""
    rule = {'"errors": Count("status", ">=", 500': BOUND}
    old = project_with(tmp_path, "jobs/page_views.py", rule)
    comparisons = old / "udfs/comparisons.py"
    now = comparisons.read_text()
    before = now.replace("(pc.greater_equal,", "(pc.greater,")
    assert before != now
    comparisons.write_text(before)
    return old


def visits(env: Environment, at: int, schema_id: int) -> None:
    """Write a view with each status in the minute that begins at `at`."""
    drafts = [
        datasets.draft(
            {
                "event_id": f"{at}-{status}",
                "event_time": at + number,
                "user_id": "u",
                "page_id": "/",
                "status": status,
            },
            schema_id,
        )
        for number, status in enumerate(STATUSES)
    ]
    produce(env, datasets.numbered(drafts))


def await_errors(env: Environment, expected: dict[int, int], table: str = "") -> None:
    """Wait until `table`, or the view's topic, has just these errors by minute, of all visits."""
    found = partial(view_rows, env, table) if table else partial(topic_rows, env, SITE)
    wait_for(
        lambda: {at: (row.views, row.errors) for (at, _), row in found().items()},
        300,
        "each minute has its errors",
        until=lambda found: found == {at: (len(STATUSES), n) for at, n in expected.items()},
    )
