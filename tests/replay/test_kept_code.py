"""An old version goes on with the code it was submitted with, though the cluster restarts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deploy.stack import Stack
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    register,
    topic_rows,
    wait_for,
)
from tests.oracle import MINUTE, SITE
from tests.replay.running import project_with, run

BOUND = '"errors": Count("status", ">=", 400'
STATUSES = (200, 400, 404, 500)
# `>` in the place of `>=` runs in Python workers, the bound is in the plan that the client makes.
OLD_ERRORS = 2

pytestmark = pytest.mark.stack


def test_a_version_computes_after_a_restart_what_it_did_before_the_code_changed(
    empty: Environment, stack: Stack, tmp_path: Path
) -> None:
    env = empty
    old = project_with(
        tmp_path, "jobs/page_views.py", {'"errors": Count("status", ">=", 500': BOUND}
    )
    panes = old / "udfs/panes.py"
    panes.write_text(panes.read_text().replace('">=": pc.greater_equal', '">=": pc.greater'))
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


def await_errors(env: Environment, expected: dict[int, int]) -> None:
    """Wait until the view has exactly these errors by minute, of all visits."""
    wait_for(
        lambda: {at: (row.views, row.errors) for (at, _), row in topic_rows(env, SITE).items()},
        300,
        "each minute has its errors",
        until=lambda found: found == {at: (len(STATUSES), n) for at, n in expected.items()},
    )
