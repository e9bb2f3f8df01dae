"""All jobs of a name end, whatever a crash left of them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.cluster import CANCELLING, Cluster, ClusterError, RunningJob
from jobs.desired import DesiredJob, alone, desired_jobs, remembered
from jobs.submit import cancel, end_all, end_for_good


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


def test_a_job_that_is_being_submitted_ends_for_good_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, settings = TwoJobs("RUNNING"), Settings(_env_file=None, home=tmp_path)
    monkeypatch.setattr("jobs.submit.Cluster", lambda *_: cluster)
    ending = threading.Thread(target=end_for_good, args=(settings, "orders.v2"))
    with alone(settings, "orders.v2"):
        ending.start()
        deadline = time.monotonic() + 30
        while cluster.states["job-0"] != "CANCELED" and time.monotonic() < deadline:
            time.sleep(0.01)
        # The submission that holds the lock had not noted its job yet.
        with remembered(settings, DesiredJob("orders.v2", "orders", 2)):
            cluster.states["job-1"] = "RUNNING"
    ending.join(30)
    assert not ending.is_alive()
    assert cluster.states == {"job-0": "CANCELED", "job-1": "CANCELED"}
    assert desired_jobs(settings) == []
