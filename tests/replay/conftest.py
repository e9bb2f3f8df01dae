"""Namespaces for replays: small jobs, and none left behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.submit import cancel
from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    environment,
    kappa,
    register,
    start_loader,
    submit_page_views,
)
from tests.replay.running import REBUILT, events_loaded


@pytest.fixture
def empty(stack: Stack) -> Iterator[Environment]:
    """Return a namespace with nothing in it; every job of it ends with the test."""
    with environment(stack) as found:
        found.settings = found.settings.model_copy(update={"parallelism": 1})
        yield found
        cluster = Cluster(found.settings.flink)
        for job in cluster.jobs():
            if job.name.startswith(f"{found.settings.namespace}.") and cluster.live_job(job.name):
                cancel(found.settings, job.name)


@pytest.fixture
def live(empty: Environment) -> Environment:
    """Return a namespace with the sample log in it and version 1 of its views live."""
    register(empty, datasets.V1)
    create_topic(empty)
    kappa(empty, "produce", "sample")
    submit_page_views(empty, REBUILT)
    start_loader(empty)
    events_loaded(empty, 1)
    return empty
