"""Which aborted transactions are a loss, and what a job does that has had one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.settings import Settings
from jobs.cluster import Cluster, ClusterUnavailable
from jobs.commits import CommitWatch, Coordinators, Transaction, by_job, counted_on
from jobs.state import CHECKPOINT_DIR, Loss, accept_loss, keep_loss, loss_of
from tests.flink_rest import flink

JOB_ID, NAME = "a" * 32, "t1.page_views"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_transactions_are_told_apart_by_job_and_numbered_by_checkpoint() -> None:
    names = [
        "kappa-page_views-0-12",
        "kappa-page_views.v2-1-7",
        "kappa-page_views.v2-top_pages-0-8",
        "kappa-t1.page_views.archive-3-1",
        "somebody-else-0-12",
        "kappa-page_views-0",
    ]
    assert by_job(names) == {
        "page_views": [Transaction("kappa-page_views-0-12", 0, 12)],
        "page_views.v2": [
            Transaction("kappa-page_views.v2-1-7", 1, 7),
            Transaction("kappa-page_views.v2-top_pages-0-8", 0, 8),
        ],
        "t1.page_views.archive": [Transaction("kappa-t1.page_views.archive-3-1", 3, 1)],
    }


def test_what_a_restore_at_a_lower_parallelism_aborted_is_no_loss() -> None:
    open_at_the_crash = [Transaction(f"t-{subtask}-7", subtask, 7) for subtask in range(4)]
    committed_by_the_restore = Transaction("t-3-6", 3, 6)

    aborted = [*open_at_the_crash[2:], committed_by_the_restore]

    assert counted_on(aborted, newest=9, restored=6, parallelism=2) == {"t-3-6"}
    assert counted_on(aborted, newest=9, restored=8, parallelism=2) == set()
    assert counted_on(open_at_the_crash, newest=6, restored=6, parallelism=4) == set()
    assert counted_on(open_at_the_crash[:1], newest=7, restored=6, parallelism=4) == {"t-0-7"}


def test_a_loss_is_kept_beside_the_state_and_grows_until_it_is_accepted(tmp_path: Path) -> None:
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as url:
        cluster = Cluster(url)
        assert loss_of(cluster, NAME) is None
        accept_loss(cluster, NAME)
        assert loss_of(cluster, NAME) is None
        keep_loss(cluster, NAME, ["b"], NOW)
        accept_loss(cluster, NAME)
        assert loss_of(cluster, NAME) == Loss(("b",), "2026-01-02T03:04:05+00:00", accepted=True)
        keep_loss(cluster, NAME, ["a"], NOW)
        assert loss_of(cluster, NAME) == Loss(("a", "b"), "2026-01-02T03:04:05+00:00")


@pytest.mark.parametrize(
    ("second", "newest", "lost"),
    [
        # Checkpoint 5 is complete, 6 is not: what it wrote is read and written again.
        ({f"kappa-{NAME}-0-5", f"kappa-{NAME}-0-6"}, 5, (f"kappa-{NAME}-0-5",)),
        ({f"kappa-{NAME}-0-5", f"kappa-{NAME}-0-6"}, 4, ()),
        # Begun anew between two looks: its events are read again, too.
        ({f"kappa-{NAME}-0-6"}, 5, ()),
    ],
)
def test_what_a_complete_checkpoint_counted_on_is_a_loss_and_stops_the_job(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: set[str],
    newest: int,
    lost: tuple[str, ...],
) -> None:
    looks = iter(({f"kappa-{NAME}-0-5", f"kappa-{NAME}-0-6"}, second))
    stopped: list[str] = []
    monkeypatch.setattr(Coordinators, "aborted", lambda self: next(looks))
    monkeypatch.setattr(Cluster, "newest_checkpoint", lambda self, job_id: (newest, 3))
    monkeypatch.setattr(Cluster, "parallelism", lambda self, job_id: 1)
    monkeypatch.setattr("jobs.commits.cancel", lambda settings, name: stopped.append(name))
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as url:
        watch = CommitWatch(Settings(_env_file=None, flink_url=url), lambda: NOW)
        assert watch.look() == ({NAME: len(lost)} if lost else {})
        loss = loss_of(Cluster(url), NAME)
    assert stopped == ([NAME] if lost else [])
    assert (loss.transactions if loss else ()) == lost


def test_transactions_are_not_listed_again_while_no_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[set[str]] = []

    def aborted(self: Coordinators) -> set[str]:
        listed.append({f"kappa-{NAME}-0-5"})
        return listed[-1]

    monkeypatch.setattr(Coordinators, "aborted", aborted)
    with flink(JOB_ID, NAME, 0, "CANCELED", configuration=kept_in(tmp_path)) as url:
        watch = CommitWatch(Settings(_env_file=None, flink_url=url), lambda: NOW)
        assert watch.look() == {}
        keep_loss(Cluster(url), NAME, [f"kappa-{NAME}-0-5"], NOW)
        assert watch.look() == {NAME: 1}
        accept_loss(Cluster(url), NAME)
        assert watch.look() == {}
    assert len(listed) == 1


def kept_in(folder: Path) -> dict[str, str]:
    return {CHECKPOINT_DIR: folder.as_uri()}


def test_what_a_lower_parallelism_left_is_no_loss_once_it_is_raised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted = {f"kappa-{NAME}-2-7", f"kappa-{NAME}-3-7"}
    state, stopped = {"newest": (9, 6), "parallelism": 2}, []
    monkeypatch.setattr(Coordinators, "aborted", lambda self: aborted)
    monkeypatch.setattr(Cluster, "newest_checkpoint", lambda self, job_id: state["newest"])
    monkeypatch.setattr(Cluster, "parallelism", lambda self, job_id: state["parallelism"])
    monkeypatch.setattr("jobs.commits.cancel", lambda settings, name: stopped.append(name))
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as url:
        settings = Settings(_env_file=None, flink_url=url)
        assert CommitWatch(settings, lambda: NOW).look() == {}
        state |= {"newest": (21, 20), "parallelism": 4}
        assert CommitWatch(settings, lambda: NOW).look() == {}
        # Begun from nothing, the job gives the same names again.
        aborted.discard(f"kappa-{NAME}-2-7")
        assert CommitWatch(settings, lambda: NOW).look() == {}
        aborted.add(f"kappa-{NAME}-2-7")
        assert CommitWatch(settings, lambda: NOW).look() == {NAME: 1}
    assert stopped == [NAME]


def test_a_job_that_could_not_be_stopped_is_stopped_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def cancel(settings: Settings, name: str) -> None:
        tried.append(name)
        if len(tried) == 1:
            raise ClusterUnavailable("no answer")

    monkeypatch.setattr(Coordinators, "aborted", lambda self: {f"kappa-{NAME}-0-5"})
    monkeypatch.setattr(Cluster, "newest_checkpoint", lambda self, job_id: (5, 3))
    monkeypatch.setattr(Cluster, "parallelism", lambda self, job_id: 1)
    monkeypatch.setattr("jobs.commits.cancel", cancel)
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as url:
        watch = CommitWatch(Settings(_env_file=None, flink_url=url), lambda: NOW)
        with pytest.raises(ClusterUnavailable):
            watch.look()
        assert watch.look() == {NAME: 1}
        assert tried == [NAME, NAME]
        accept_loss(Cluster(url), NAME)
        assert watch.look() == {}
    assert tried == [NAME, NAME]


def test_a_job_is_not_stopped_for_a_loss_that_is_accepted_before_it_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(Coordinators, "aborted", lambda self: {f"kappa-{NAME}-0-5"})
    monkeypatch.setattr(Cluster, "newest_checkpoint", lambda self, job_id: (5, 5))
    monkeypatch.setattr(Cluster, "parallelism", lambda self, job_id: 1)
    monkeypatch.setattr("jobs.commits.cancel", lambda settings, name: stopped.append(name))
    with (
        flink(JOB_ID, "t1.orders", 0, "RUNNING", configuration=kept_in(tmp_path)) as before,
        flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as after,
    ):
        keep_loss(Cluster(before), NAME, [f"kappa-{NAME}-0-5"], NOW)
        watch = CommitWatch(Settings(_env_file=None, flink_url=before), lambda: NOW)

        def submitted(cluster: Cluster, name: str) -> Loss | None:
            found = loss_of(cluster, name)
            watch._cluster = Cluster(after)
            accept_loss(cluster, name)
            return found

        # What was lost is read, and only then does the job run.
        monkeypatch.setattr("jobs.commits.loss_of", submitted)
        assert watch.look() == {NAME: 1}
        assert watch.look() == {}
    assert stopped == []


@pytest.mark.parametrize(
    ("newest", "restored", "still", "stopped"),
    [
        # Its checkpoints count on them: it went on from its newest state.
        (9, 8, {f"kappa-{NAME}-0-5"}, [NAME]),
        (5, 5, {f"kappa-{NAME}-0-5"}, [NAME]),
        # Begun before them, it reads their rows again, and writes them under the same name.
        (4, 3, {f"kappa-{NAME}-0-5"}, []),
        (5, 3, set(), []),
    ],
)
def test_a_job_that_reads_again_what_it_lost_is_not_stopped_once_more(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    newest: int,
    restored: int,
    still: set[str],
    stopped: list[str],
) -> None:
    looks = iter(({f"kappa-{NAME}-0-5"}, still))
    cancelled: list[str] = []
    monkeypatch.setattr(Coordinators, "aborted", lambda self: next(looks))
    monkeypatch.setattr(Cluster, "newest_checkpoint", lambda self, job_id: (newest, restored))
    monkeypatch.setattr(Cluster, "parallelism", lambda self, job_id: 1)
    monkeypatch.setattr("jobs.commits.cancel", lambda settings, name: cancelled.append(name))
    with flink(JOB_ID, NAME, 0, "RUNNING", configuration=kept_in(tmp_path)) as url:
        keep_loss(Cluster(url), NAME, [f"kappa-{NAME}-0-5"], NOW)
        # It is told all the same, until somebody accepts it.
        assert CommitWatch(Settings(_env_file=None, flink_url=url), lambda: NOW).look() == {NAME: 1}
    assert cancelled == stopped
