"""What a rebuild goes on from, and what it refuses to. No stack."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from deploy.settings import Settings
from jobs.cluster import Cluster
from jobs.state import CHECKPOINT_DIR, keep_loss
from jobs.submit import SubmissionFailed
from replay import build
from replay.control import Control
from replay.steps import Work
from tests.flink_rest import flink
from tests.replay.test_plan import recorded

JOB_ID, NAME = "a" * 32, "page_views.v3"
RECORD = recorded("page_views", {"page_views_per_minute": 1})
LOST = ["kappa-page_views.v3-0-5"]
TOLD = (
    "lost the rows of 1 transaction, found at 2026-01-02T03:04:05+00:00: Kafka aborted what a "
    "checkpoint had counted on, as after an outage longer than the transactions' timeout; a "
    "rebuild that goes on would lack them: `kappa replay abort`, then build anew."
)


@pytest.mark.parametrize("lost", [NAME, f"{NAME}.archive"])
def test_a_rebuild_that_lost_rows_is_not_gone_on_with(tmp_path: Path, lost: str) -> None:
    kept = {CHECKPOINT_DIR: tmp_path.as_uri()}
    with flink(JOB_ID, lost, 0, "CANCELED", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        keep_loss(Cluster(url), lost, LOST, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        with pytest.raises(SubmissionFailed) as refused:
            build._submit(Work(settings, cast(Control, None)), RECORD, "file:///chk-5", {})
        assert str(refused.value) == f"{lost} {TOLD}"
        rebuilt = build.rebuilt_plan(settings, RECORD)
        reading = replace(rebuilt, copy="a copy" if lost != NAME else "")
        with pytest.raises(SubmissionFailed) as ended:
            build._check_alive(settings, reading, build._Pace())
        assert str(ended.value) == f"{lost} {TOLD}"
