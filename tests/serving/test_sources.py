"""What the dashboard is told of Flink's jobs: by all clusters that answer, and not too often."""

from __future__ import annotations

import pytest

from deploy.settings import Settings
from jobs.cluster import ClusterUnavailable
from serving.sources import FlinkSource
from tests.endpoint.running import free_port
from tests.flink_rest import flink

ORDERS = {
    "name": "orders",
    "version": 1,
    "accounts": ["orders", "payments", "customer_segments"],
    "state": "RUNNING",
    "failure": "",
    "started": 5,
    "checkpoint": 6,
    "checkpoints_failed": 2,
    "watermark": None,
}


def source(*urls: str, now: list[float]) -> FlinkSource:
    return FlinkSource(Settings(_env_file=None, flink_url=",".join(urls)), lambda: now[0])


def test_a_silent_cluster_is_named_beside_the_jobs_of_the_others() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with flink("a" * 32, "orders", 5, "RUNNING") as first:
        jobs = source(nobody, first, now=[0.0])()
    assert jobs[0] == ORDERS
    assert [job["state"] for job in jobs] == ["RUNNING", "SILENT"]
    assert nobody in jobs[1]["failure"]
    assert jobs[1].keys() == ORDERS.keys()
    with pytest.raises(ClusterUnavailable, match=nobody):
        source(nobody, now=[0.0])()


def test_a_job_is_asked_after_every_few_seconds() -> None:
    asked: list[str] = []
    now = [0.0]
    with flink("a" * 32, "orders", 5, "RUNNING", asked) as first:
        read = source(first, now=now)
        for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
            assert read() == [ORDERS]
    assert asked.count("/jobs/overview") == 5
    assert asked.count(f"/jobs/{'a' * 32}/checkpoints") == 2


@pytest.mark.parametrize(
    ("name", "version", "accounts"),
    [
        ("categories", 1, ["pages", "page_requests"]),
        ("page_views.v2", 2, ["page_views"]),
        ("page_views.v3.archive", 3, ["page_views"]),
        ("of_another_release.v2", 2, None),
    ],
)
def test_a_job_has_the_accounts_of_its_own_streams_and_version(
    name: str, version: int, accounts: list[str] | None
) -> None:
    with flink("a" * 32, name, 5, "RUNNING") as first:
        (job,) = source(first, now=[0.0])()
    assert (job["name"], job["version"], job["accounts"]) == (name, version, accounts)
