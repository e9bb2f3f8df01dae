"""All jobs of a name end, whatever a crash left of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.cluster import CANCELLING, Cluster, ClusterError, RunningJob
from jobs.submit import cancel, end_all


class TwoJobs(Cluster):
    """A cluster on which a crash left a second job of a name; jobs take a look to end."""

    def __init__(self, *states: str) -> None:
        super().__init__("http://127.0.0.1:1")
        self.states = {f"job-{number}": state for number, state in enumerate(states)}
        self.asked: list[str] = []

    def look(self) -> tuple[list[RunningJob], list[Exception]]:  # type: ignore[override]
        jobs = [RunningJob(job, "orders.v2", state, 1) for job, state in self.states.items()]
        return [RunningJob("job-x", "orders", "RUNNING", 2), *jobs], []

    def cancel(self, job_id: str) -> None:
        self.asked.append(job_id)
        self.states[job_id] = CANCELLING

    def state(self, job_id: str) -> str:
        now = self.states[job_id]
        if now == CANCELLING:
            self.states[job_id] = "CANCELED"
        return now


def test_every_job_of_the_name_is_cancelled_and_awaited() -> None:
    cluster = TwoJobs("RUNNING", "RESTARTING", CANCELLING, "FAILED")
    end_all(cluster, "orders.v2")
    assert cluster.asked == ["job-0", "job-1"]
    assert [*cluster.states.values()] == ["CANCELED"] * 3 + ["FAILED"]
    end_all(cluster, "orders.v2")
    assert cluster.asked == ["job-0", "job-1"]


def test_a_job_that_does_not_run_is_not_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.submit.Cluster", lambda *_: TwoJobs("CANCELED"))
    with pytest.raises(ClusterError, match=r"no job orders\.v2 runs; running: orders"):
        cancel(Settings(_env_file=None, home=tmp_path), "orders.v2")
