"""Which version of a job is meant when none is named."""

from __future__ import annotations

import pytest

from deploy.settings import Settings
from jobs import versions
from jobs.catalogue import job_named
from jobs.versions import seen_version, usual_version
from tests.endpoint.running import free_port

JOB = job_named("page_views")
FIRST, SECOND, THIRD, *_ = (view.name for view in JOB.views)


@pytest.mark.parametrize(
    ("shown", "version"),
    [
        ({}, None),
        ({FIRST: 1, SECOND: 1}, 1),
        # Promoted, and the old version still there to go back to.
        ({FIRST: 2, SECOND: 2}, 2),
        # A view that runs beside the job until the next rebuild, or was replaced alone.
        ({FIRST: 2, SECOND: 1, THIRD: 1}, 1),
        ({FIRST: 3, SECOND: 2}, 2),
        # Another job's views, and what no job is asked for.
        ({"word_counts": 7, "page_views_accounting": 9}, None),
    ],
)
def test_the_version_is_meant_in_which_people_see_most_views(
    shown: dict[str, int], version: int | None
) -> None:
    assert seen_version(JOB, shown) == version


def test_without_clickhouse_the_lowest_version_with_topics_is_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = {"n.views.page_views_accounting.v3", "n.views.page_views_accounting.v12", "n.other.v1"}
    monkeypatch.setattr(versions, "topic_names", lambda _: frozenset(topics))
    settings = Settings(_env_file=None, namespace="n", clickhouse_port=free_port())
    assert usual_version(settings, JOB) == 3
