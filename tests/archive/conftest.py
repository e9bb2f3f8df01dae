"""Namespaces with an archive of their own, and no job left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.submit import cancel
from tests.harness import Environment, create_topic, environment


@pytest.fixture
def env(stack: Stack, tmp_path: Path) -> Iterator[Environment]:
    """Return a namespace with an empty events topic; every job of it ends with the test."""
    with environment(stack) as found:
        place = {"archive_url": str(tmp_path / "archive"), "parallelism": 1}
        found.settings = found.settings.model_copy(update=place)
        create_topic(found)
        yield found
        cluster = Cluster(found.settings.flink)
        for job in cluster.jobs():
            if job.name.startswith(f"{found.settings.namespace}.") and cluster.live_job(job.name):
                cancel(found.settings, job.name)
