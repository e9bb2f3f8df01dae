"""What Flink's client is told when a job is submitted."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.settings import Settings
from jobs import resume as resuming
from jobs import submit as submitting
from jobs import upgrade as upgrading
from jobs.catalogue import JOBS, UnknownJob
from jobs.cluster import Cluster, ClusterError, ClusterUnavailable, RunningJob
from jobs.desired import DesiredJob, desired_jobs, remembered
from jobs.plan import plan
from jobs.resume import submit_again
from jobs.state import (
    Loss,
    StateFolder,
    StateUnavailable,
    keep_loss,
    loss_of,
    state_folders,
)
from jobs.submit import SubmissionFailed, Submitted, cancel, submit, take_savepoint
from jobs.upgrade import upgrade
from sinks.lag import LagReader
from tests.flink_rest import flink


@pytest.fixture(autouse=True)
def committed(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], int]:
    """What every consumer group has committed; nothing to begin with."""
    offsets: dict[tuple[str, int], int] = {}
    monkeypatch.setattr(LagReader, "committed", lambda self, group: offsets)
    return offsets


def test_a_job_keeps_its_checkpoints_where_the_cluster_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, f"JobID {'b' * 32}", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    kept = {"execution.checkpointing.dir": f"{tmp_path.as_uri()}/checkpoints/"}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, namespace="n", flink_url=url)
        submit(settings, "words", version=2)
    (command,) = commands
    given = dict(itertools.pairwise(command))
    own = f"{tmp_path.as_uri()}/checkpoints/n.words.v2"
    assert given["-D"] == f"execution.checkpointing.dir={own}"
    assert command.index("-D") < command.index("-py"), "what follows -py is the job's"
    assert given["-m"] == url.removeprefix("http://")


OLDER = "file:///elsewhere/savepoint-1"
ANEW = DesiredJob("words", "words", 1, restore="none")
LAYOUTS = {"before": {"words": "before"}, "now": plan(JOBS["words"], 1).layout}
FOUND = Loss(("kappa-words-0-5",), "2026-01-02T00:00:00+00:00")


def _runs(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """Stand in for a client that has submitted its job."""
    return subprocess.CompletedProcess(command, 0, f"JobID {'b' * 32}", "")


def test_what_was_begun_anew_is_resumed_so_until_it_has_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(at: int) -> str:
        place = tmp_path / f"checkpoints/words/0a/chk-{at}/_metadata"
        place.parent.mkdir(parents=True)
        place.touch()
        os.utime(place, (at, at))
        return f"{tmp_path.as_uri()}/checkpoints/words/0a/chk-{at}"

    monkeypatch.setattr(subprocess, "run", _runs)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    older, newer = state(1_000), state(2_000)
    kept = {"execution.checkpointing.dir": f"{tmp_path.as_uri()}/checkpoints"}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        for chosen, begun in (("none", None), (older, older), ("latest", newer)):
            submit(settings, "words", restore=chosen)
            for _ in range(2):
                (desired,) = desired_jobs(settings)
                assert submit_again(settings, desired).restored_from == begun
        submit(settings, "words", restore="none")
        own = state(3_000)
        (desired,) = desired_jobs(settings)
        assert submit_again(settings, desired).restored_from == own


@pytest.mark.parametrize(
    ("desired", "read", "begun"),
    [
        (DesiredJob("words", "words", 1), {}, True),
        (DesiredJob("words", "words", 1), {("events.words", 0): 0}, True),
        (DesiredJob("words", "words", 1), {("events.words", 0): 7}, False),
        (DesiredJob("words", "words", 1, restore="none"), {("events.words", 0): 7}, False),
        (DesiredJob("words", "words", 1, restore="none", before=OLDER), {}, True),
        # What the job before it committed stands there still, or no more.
        (replace(ANEW, committed={"events.words:0": 7}), {("events.words", 0): 7}, True),
        (replace(ANEW, committed={"events.words:0": 7}), {("events.words", 0): 3}, False),
        (DesiredJob("words", "words", 1, before=OLDER), {}, False),
        (DesiredJob("words", "words", 1, restore=OLDER), {("events.words", 0): 7}, True),
    ],
)
def test_a_job_whose_state_is_gone_does_not_begin_anew_by_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    desired: DesiredJob,
    read: dict[tuple[str, int], int],
    begun: bool,
) -> None:
    submitted: list[str] = []
    groups: list[str] = []
    monkeypatch.setattr(LagReader, "committed", lambda self, group: groups.append(group) or read)
    monkeypatch.setattr(
        resuming, "submit", lambda settings, job, **how: submitted.append(how["restore"])
    )
    kept = {"execution.checkpointing.dir": tmp_path.as_uri()}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        if begun:
            submit_again(settings, desired)
            assert submitted in ([desired.restore], ["latest"])
        else:
            with pytest.raises(SubmissionFailed) as refused:
                submit_again(settings, desired)
            assert str(refused.value) == (
                f"words has read on, and its state is gone from {tmp_path.as_uri()}/words: bring "
                "that back, or begin at offset zero with `kappa submit words --version 1 --from "
                "none`."
            )
    assert set(groups) <= {"kappa-words"}


def test_a_job_that_is_begun_anew_is_resumed_before_its_first_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    committed: dict[tuple[str, int], int],
) -> None:
    committed["events.words", 0] = 7
    monkeypatch.setattr(subprocess, "run", _runs)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    kept = {"execution.checkpointing.dir": tmp_path.as_uri()}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        submit(settings, "words", restore="none")
        for _ in range(2):
            (desired,) = desired_jobs(settings)
            assert submit_again(settings, desired).restored_from is None
        committed["events.words", 0] = 3
        with pytest.raises(SubmissionFailed, match="words has read on"):
            submit_again(settings, desired)


def test_a_cluster_that_keeps_no_state_begins_its_jobs_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[str] = []
    monkeypatch.setattr(
        resuming, "submit", lambda settings, job, **how: submitted.append(how["restore"])
    )
    with flink("a" * 32, "orders", 5, "RUNNING") as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        submit_again(settings, DesiredJob("words", "words", 1, restore="none"))
    assert submitted == ["none"]


def test_a_job_that_is_cancelled_while_flinks_client_runs_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr(Cluster, "cancel", lambda _, job_id: ended.append(job_id))
    with flink("a" * 32, "orders", 5, "RUNNING") as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            with pytest.raises(ClusterError, match="no job words runs"):
                cancel(settings, "words")
            return _runs(command)

        monkeypatch.setattr(subprocess, "run", run)
        with pytest.raises(SubmissionFailed, match="words was cancelled while it was being"):
            submit(settings, "words")
        assert ended == ["b" * 32]
        assert desired_jobs(settings) == []


SLOW, REFUSED = ClusterUnavailable("no answer"), SubmissionFailed("words does not start")


@pytest.mark.parametrize(
    ("outcome", "restore", "layout", "loss", "passed"),
    [
        # Whoever gives up waiting leaves a job that writes state of its own.
        (SLOW, OLDER, "now", "accepted", {"before"}),
        (KeyboardInterrupt(), OLDER, "now", "accepted", {"before"}),
        (None, OLDER, "now", "accepted", {"before"}),
        (None, "none", "now", None, {"before", *FOUND.transactions}),
        (REFUSED, OLDER, "before", "found", {"before"}),
        (REFUSED, "none", "before", "found", {"before"}),
    ],
)
def test_what_is_noted_of_a_job_is_that_of_the_one_that_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: BaseException | None,
    restore: str,
    layout: str,
    loss: str | None,
    passed: set[str],
) -> None:
    def await_running(*_: object) -> None:
        if outcome is not None:
            raise outcome

    accepted: list[bool] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        found = loss_of(Cluster(*settings.flink_clusters), "words")
        accepted.append(found is not None and found.accepted)
        return _runs(command)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(submitting, "_await_running", await_running)
    monkeypatch.setattr(submitting, "_check_layout", lambda *_: None)
    with noted(tmp_path) as (settings, folder):
        folder.keep_passed({"before"})
        with pytest.raises(type(outcome)) if outcome else nullcontext():
            submit(settings, "words", restore=restore, lost_rows_accepted=True)
        assert folder.layout() == LAYOUTS[layout]
        losses = {"found": FOUND, "accepted": replace(FOUND, accepted=True), None: None}
        assert folder.loss() == losses[loss]
        assert folder.passed() == passed
    # The watch over commits stops one that runs before that.
    assert accepted == [True]


@contextmanager
def noted(home: Path) -> Iterator[tuple[Settings, StateFolder]]:
    """A cluster in whose state it is noted what a job of words computed and lost before."""
    kept = {"execution.checkpointing.dir": home.as_uri()}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        folder = state_folders(Cluster(url), "words")[0]
        folder.keep_layout(LAYOUTS["before"])
        folder.keep_loss(FOUND)
        yield Settings(_env_file=None, home=home, flink_url=url), folder


@pytest.mark.parametrize(
    ("fails", "accepted", "layout"),
    [("keep_loss", True, "before"), ("keep_layout", False, "now"), ("loss", True, "before")],
)
def test_a_store_that_fails_does_not_hide_why_a_job_was_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: str,
    accepted: bool,
    layout: str,
) -> None:
    def away(*_: object) -> None:
        raise StateUnavailable("the store is away")

    def refused(*_: object) -> None:
        refusing.setattr(StateFolder, fails, away)
        raise REFUSED

    monkeypatch.setattr(subprocess, "run", _runs)
    monkeypatch.setattr(submitting, "_await_running", refused)
    monkeypatch.setattr(submitting, "_check_layout", lambda *_: None)
    with noted(tmp_path) as (settings, folder):
        with (
            monkeypatch.context() as refusing,
            pytest.raises(SubmissionFailed, match="words does not start"),
        ):
            submit(settings, "words", restore=OLDER, lost_rows_accepted=True)
        assert folder.loss() == replace(FOUND, accepted=accepted)
        assert folder.layout() == LAYOUTS[layout]
    assert caplog.messages == [
        "words: what was noted beside its state could not be put back: the store is away"
    ]


def test_a_loss_that_stopped_a_job_while_it_started_stays_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(cluster: Cluster, name: str, job_id: str) -> None:
        keep_loss(cluster, name, FOUND.transactions, datetime(2026, 1, 2, tzinfo=UTC))
        raise SubmissionFailed("words was cancelled before all of it ran.")

    monkeypatch.setattr(subprocess, "run", _runs)
    monkeypatch.setattr(submitting, "_await_running", lost)
    kept = {"execution.checkpointing.dir": tmp_path.as_uri()}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=kept) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        with pytest.raises(SubmissionFailed, match="was cancelled"):
            submit(settings, "words")
        folder = state_folders(Cluster(url), "words")[0]
        assert (folder.layout(), folder.loss()) == (None, FOUND)


def test_a_job_that_is_cancelled_while_it_starts_is_not_waited_for(tmp_path: Path) -> None:
    with flink("a" * 32, "words", 5, "CANCELED") as url:
        cluster = Cluster(url)
        with pytest.raises(SubmissionFailed, match="words was cancelled before all of it ran"):
            submitting._await_running(cluster, "words", "a" * 32)


def test_one_job_that_is_not_resumed_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    failures = {
        "bidding": ClusterError("nothing came of it"),
        "gone": UnknownJob("no such job"),
        "orders": ClusterUnavailable("no answer"),
    }

    def again(_: Settings, desired: DesiredJob) -> Submitted:
        tried.append(desired.name)
        if desired.name in failures:
            raise failures[desired.name]
        return Submitted("b" * 32, desired.name, None, "")

    monkeypatch.setattr(resuming, "submit_again", again)
    with flink("a" * 32, "page_views", 5, "RUNNING") as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        for name in (*failures, "page_views", "words"):
            with remembered(settings, DesiredJob(name, name, 1)):
                pass
        assert resuming.resume(settings) == 3
    assert tried == ["bidding", "gone", "orders", "words"]


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 1)])
def test_resuming_ends_with_its_failures_and_logs_no_questions(
    failures: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = logging.getLogger("httpx")
    monkeypatch.setattr(asked, "level", logging.NOTSET)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(resuming, "resume", lambda _: failures)
    with pytest.raises(SystemExit) as ended:
        resuming.main()
    assert (ended.value.code, asked.level) == (code, logging.WARNING)


def test_a_savepoint_is_waited_for_as_long_as_flink_lets_it_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def until(condition: object, seconds: float, name: str) -> str:
        waited.append(seconds)
        return "file:/savepoint"

    monkeypatch.setattr(submitting, "_until", until)
    monkeypatch.setattr(Cluster, "trigger_savepoint", lambda *_, **__: "request")
    with flink("a" * 32, "words", 5, "RUNNING", timeout_ms=900_000) as url:
        settings = Settings(_env_file=None, home=tmp_path, flink_url=url)
        assert take_savepoint(settings, "words", stop=True)[1] == "file:/savepoint"
    assert waited == [960.0]


def test_a_password_in_a_file_is_no_variable_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        given.append(how["env"])
        return subprocess.CompletedProcess(command, 0, f"JobID {'b' * 32}", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(submitting, "_await_running", lambda *_: None)
    (tmp_path / "kappa_kafka_sasl_password").write_text("in a file")
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("KAPPA_REGISTRY_PASSWORD", "in a variable")
    with flink("a" * 32, "orders", 5, "RUNNING") as url:
        submit(Settings(_env_file=None, home=tmp_path / "home", flink_url=url), "words")
    (environment,) = given
    # The job would refer to a variable, which the TaskManagers on other machines do not have.
    assert "KAPPA_KAFKA_SASL_PASSWORD" not in environment
    assert environment["KAPPA_SECRETS_DIR"] == str(tmp_path)
    assert environment["KAPPA_REGISTRY_PASSWORD"] == "in a variable"


def test_a_job_in_a_cluster_of_its_own_is_not_upgraded_into_another(tmp_path: Path) -> None:
    asked: list[str] = []
    with (
        flink("a" * 32, "orders.v2", 5, "RUNNING") as first,
        flink("b" * 32, "orders", 5, "RUNNING", asked) as own,
    ):
        settings = Settings(_env_file=None, home=tmp_path, flink_url=f"{first},{own}")
        with pytest.raises(SubmissionFailed, match=f"orders belongs to .* {own} .*FlinkDeployment"):
            upgrade(settings, "orders")
    assert not any("stop" in path or "savepoint" in path for path in asked)


@pytest.mark.parametrize("state", ["FINISHED", "CANCELED", "FAILED"])
def test_a_job_that_a_cluster_of_its_own_would_start_again_is_not_started(
    tmp_path: Path, state: str
) -> None:
    with (
        flink("a" * 32, "orders.v2", 5, "RUNNING") as first,
        flink("b" * 32, "orders", 5, state) as own,
    ):
        settings = Settings(_env_file=None, home=tmp_path, flink_url=f"{first},{own}")
        with pytest.raises(SubmissionFailed, match=f"orders belongs to .* {own} .*FlinkDeployment"):
            submit(settings, "orders", restore="none")


def test_an_upgrade_that_was_killed_half_way_says_how_to_go_on(tmp_path: Path) -> None:
    views, options = ("revenue_per_minute", "order_funnel"), {"parallelism": 1}
    kept = DesiredJob("orders.v2", "orders", 2, views, "", options)
    assert refused_upgrade(tmp_path, kept, "FINISHED") == (
        "orders.v2 does not run, so there is nothing to stop: `kappa submit orders --version 2 "
        "--view revenue_per_minute --view order_funnel --parallelism 1` goes on from its newest "
        "state with the code as it is."
    )


def test_an_upgrade_that_does_not_start_tells_how_to_go_back_with_the_views_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise SubmissionFailed("no slots.")

    taken = RunningJob("a" * 32, "words.v2", "RUNNING", 5), "file:/savepoint"
    monkeypatch.setattr(upgrading, "take_savepoint", lambda *_, **__: taken)
    monkeypatch.setattr(upgrading, "submit", refused)
    kept = DesiredJob("words.v2", "words", 2, ("word_counts",))
    assert refused_upgrade(tmp_path, kept, "RUNNING") == (
        "no slots. Its state is in file:/savepoint: put the former code back and run "
        "`kappa submit words --version 2 --view word_counts --from file:/savepoint`."
    )


def test_an_upgrade_that_is_slow_to_start_does_not_tell_to_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        raise ClusterError("words.v2: nothing came of it within 120 s.")

    taken = RunningJob("a" * 32, "words.v2", "RUNNING", 5), "file:/savepoint"
    monkeypatch.setattr(upgrading, "take_savepoint", lambda *_, **__: taken)
    monkeypatch.setattr(upgrading, "submit", slow)
    assert refused_upgrade(tmp_path, DesiredJob("words.v2", "words", 2), "RUNNING") == (
        "words.v2: nothing came of it within 120 s. words.v2 is there with the code as it is, and "
        "may only be slow to start: see `kappa status`."
    )


def refused_upgrade(home: Path, kept: DesiredJob, state: str) -> str:
    """Return why `kept`, which Flink has in `state`, is not upgraded."""
    with flink("a" * 32, kept.name, 5, state) as url:
        settings = Settings(_env_file=None, home=home, flink_url=url)
        with remembered(settings, kept):
            pass
        with pytest.raises(SubmissionFailed) as refused:
            upgrade(settings, kept.job, version=kept.version)
    return str(refused.value)
