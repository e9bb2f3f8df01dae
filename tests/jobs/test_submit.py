"""Jobs go on where they stopped, and refuse what they can't go on from."""

from collections.abc import Iterator

import pytest

from deploy.flink import SLOTS
from deploy.stack import Stack
from jobs.cluster import Cluster
from jobs.state import latest_state, state_folders
from jobs.submit import SubmissionFailed, flink_name, submit, take_savepoint
from tests import datasets
from tests.harness import (
    PANE_VIEWS,
    Environment,
    completed_checkpoints,
    environment,
    produce,
    register,
    start,
    submit_page_views,
    wait_for,
)
from tests.settling import settle

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def stopped(stack: Stack) -> Iterator[tuple[Environment, str]]:
    """A job stopped with a savepoint after a first half of events, and the savepoint."""
    with environment(stack) as env:
        schema_id = register(env, datasets.V1)
        start(env)
        produce(env, datasets.dense_traffic(schema_id, events=4_000))
        settle(env)
        wait_for(lambda: completed_checkpoints(env) > 0, 30, "a checkpoint completes")
        _, location = take_savepoint(env.settings, env.job_name, stop=True)
        env.job_id = ""
        yield env, location


def test_the_newest_state_is_the_savepoint_it_was_stopped_with(
    stopped: tuple[Environment, str],
) -> None:
    env, location = stopped
    newest = latest_state(Cluster(env.settings.flink), env.job_name)

    assert newest is not None
    assert newest.split("/")[-1] == location.rstrip("/").split("/")[-1]


def test_state_that_is_not_there_is_refused(stopped: tuple[Environment, str]) -> None:
    env, _ = stopped

    with pytest.raises(SubmissionFailed, match="nowhere"):
        submit(env.settings, "page_views", views=PANE_VIEWS, restore="file:///nowhere/savepoint-1")

    assert Cluster(env.settings.flink).live_job(env.job_name) is None


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        ({"page_views_sliding": "another window"}, "page_views_sliding changed"),
        (
            {"page_views_sliding": None},
            "run that beside it: .* --view page_views_sliding --version",
        ),
        ({"top_things": "ten of them"}, "can't continue without top_things, which is in its state"),
    ],
)
def test_a_view_that_changed_came_or_went_since_its_state_was_written_is_refused(
    stopped: tuple[Environment, str], layout: dict[str, str | None], said: str
) -> None:
    env, _ = stopped
    kept = state_folders(Cluster(env.settings.flink), env.job_name)[0]
    true_layout = kept.layout()
    assert true_layout is not None
    kept.keep_layout({name: text for name, text in (true_layout | layout).items() if text})
    try:
        with pytest.raises(SubmissionFailed, match=said):
            submit(env.settings, "page_views", views=PANE_VIEWS)
    finally:
        kept.keep_layout(true_layout)

    assert Cluster(env.settings.flink).live_job(env.job_name) is None


def test_a_job_that_gets_no_slots_is_cancelled_and_says_so(
    stopped: tuple[Environment, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    env, _ = stopped
    monkeypatch.setattr("jobs.submit._START_SECONDS", 20.0)

    with pytest.raises(SubmissionFailed, match="no slots came free"):
        submit(
            env.settings,
            "page_views",
            version=9,
            views=("site_traffic_per_minute",),
            restore="none",
            options={"parallelism": SLOTS + 1},
        )

    wait_for(
        lambda: not Cluster(env.settings.flink).unended(flink_name(env.settings, "page_views", 9)),
        30,
        "it ends",
    )


def test_a_job_continues_from_its_savepoint_and_a_second_one_is_refused(
    stopped: tuple[Environment, str],
) -> None:
    env, location = stopped
    schema_id = next(iter(env.registered))

    submitted = submit_page_views(env)

    assert (submitted.restored_from or "").split("/")[-1] == location.rstrip("/").split("/")[-1]
    with pytest.raises(SubmissionFailed, match="runs already"):
        submit(env.settings, "page_views")
    produce(env, datasets.dense_traffic(schema_id, events=4_000, start=datasets.EVENING, seed=3))
    settle(env)
