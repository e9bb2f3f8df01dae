"""What a rebuild goes on from, and what it refuses to. No stack."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from deploy.settings import PROJECT_ROOT, Settings
from jobs.cluster import Checkpoints, Cluster, ClusterError, RunningJob
from jobs.code import code_name
from jobs.state import CHECKPOINT_DIR, accept_loss, keep_loss
from jobs.submit import SubmissionFailed
from replay import build
from replay.commands import _done
from replay.control import Control
from replay.options import Wish
from replay.records import ReplayRecord, ReplayState, VersionState
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


class Plane:
    """A control plane that knows of one replay, built with the code as it is and promoted."""

    def version_states(self) -> dict[tuple[str, int], VersionState]:
        return {("page_views_per_minute", 3): VersionState.LIVE}

    def replays(self) -> list[ReplayRecord]:
        return [replace(RECORD, state=ReplayState.PROMOTED)]

    def journal(self, replay: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(detail={"code": code_name(PROJECT_ROOT)})]


def test_what_was_built_is_built_again_once_its_job_has_lost_rows(tmp_path: Path) -> None:
    wish = Wish(views=["page_views_per_minute"])
    kept = {CHECKPOINT_DIR: tmp_path.as_uri()}
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        work = Work(settings, cast(Control, Plane()))
        assert _done(work, wish) == Plane().replays()[0]
        keep_loss(Cluster(url), NAME, LOST, datetime(2026, 1, 2, tzinfo=UTC))
        assert _done(work, wish) is None
        accept_loss(Cluster(url), NAME)
        assert _done(work, wish) is None


@dataclass
class Checkpointing:
    """A cluster, and a clock that is driven, on which checkpoints take `taken` seconds.

    Each begins `interval` seconds after the one before has ended, or never.
    """

    interval: float
    taken: float
    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def live_job(self, name: str) -> RunningJob:
        return RunningJob(JOB_ID, name, "RUNNING", 0)

    def get(self, path: str) -> dict[str, dict[str, float]]:
        return {"counts": {"completed": self.now // (self.interval + self.taken)}}

    def checkpoints(self, job_id: str) -> Checkpoints:
        under_way = self.now % (self.interval + self.taken) >= self.interval
        return Checkpoints(None, 0, "", under_way)


@pytest.mark.parametrize(
    ("interval", "taken", "every", "done"),
    [
        (2, 1, 2, 6),
        (400, 30, 400, 860),
        (2, 590, 2, 1_184),
        (math.inf, 1, 2, None),
        (math.inf, 1, 400, None),
        (2, math.inf, 2, None),
    ],
)
def test_checkpoints_are_waited_for_as_long_as_they_may_take(
    monkeypatch: pytest.MonkeyPatch,
    interval: float,
    taken: float,
    every: float,
    done: float | None,
) -> None:
    flink = Checkpointing(interval, taken)
    monkeypatch.setattr(build, "time", flink)
    monkeypatch.setattr(build, "Cluster", lambda *_: flink)
    settings = Settings(_env_file=None, checkpoint_seconds=every)
    plans = [build.rebuilt_plan(settings, RECORD)]
    if done is not None:
        build.await_checkpoints(settings, *plans)
        assert flink.now == done
        return
    with pytest.raises(ClusterError, match="completes no checkpoint"):
        build.await_checkpoints(settings, *plans)
    # Flink itself ends a checkpoint that takes longer than ten minutes.
    patience = max(300, 3 * every) + (600 if taken > interval else 0)
    assert flink.now == patience + 0.5
