"""Leases, locks and a control plane that is down."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from confluent_kafka import Consumer
from pydantic import SecretStr

from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from jobs.code import code_name
from replay.control import Busy, Control, ControlUnavailable, LeaseTaken, Overtaken
from replay.differences import Expectation
from replay.ending import LoaderHolds, await_loader_gone
from replay.plan import plan_replay
from replay.records import ReplayRecord, ReplayState, VersionState
from replay.steps import Work
from replay.switch import promote
from sinks.loader import group_of
from tests import datasets
from tests.harness import Environment, create_topic, produce, read_topic, rows, wait_for
from tests.oracle import MINUTE
from tests.replay.door import Door, door
from tests.replay.running import (
    control,
    done,
    journal,
    newest,
    one_version,
    readers,
    refused,
    run,
    shown,
    start,
    visit,
)
from tests.replay.test_plan import FACTS


def test_a_second_replay_is_refused_and_told_who_holds_the_views(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    with control(empty) as first, Control(empty.settings.postgres, first.namespace, "me") as second:
        replay = first.begin(plan)
        with pytest.raises(LeaseTaken, match=f"held by replay {replay.id} .* by tests"):
            second.begin(plan)
        assert [one.id for one in second.replays()] == [replay.id]
        first.change(replay, ReplayState.ABORTED, {})
        with pytest.raises(Overtaken, match=f"replay {replay.id} .* is no longer building"):
            second.change(replay, ReplayState.PROMOTED, {})
        assert second.leases() == []
        assert second.begin(plan).id != replay.id


def test_one_process_at_a_time_changes_a_replay(empty: Environment) -> None:
    with control(empty) as first, control(empty) as second:
        first.lock("page_views")
        first.lock("page_views")
        with pytest.raises(Busy, match=r"another process .* \(tests\)"):
            second.lock("page_views")
        first.close()
        second.lock("page_views")


def test_a_lock_that_only_the_server_keeps_is_taken_back(empty: Environment) -> None:
    with control(empty) as plane, control(empty) as other:
        plane.lock("page_views")
        lost, plane._connection = plane._connection, None
        assert lost is not None
        assert plane.leases() == []
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        with pytest.raises(Busy):
            other.lock("page_views")


def test_a_lock_is_taken_back_by_a_process_of_a_long_name_and_not_by_its_neighbour(
    empty: Environment,
) -> None:
    place = empty.settings.postgres, empty.settings.namespace
    names = [f"zoë@{'pod' * 20}, process {number}" for number in (1, 2)]
    with Control(*place, names[0]) as plane, Control(*place, names[1]) as neighbour:
        plane.lock("page_views")
        lost, plane._connection = plane._connection, None
        assert plane.leases() == []
        assert lost is not None
        with pytest.raises(psycopg.OperationalError):
            lost.execute("SELECT 1")
        # As if it had had the lock before.
        neighbour._locked_job = "page_views"
        with pytest.raises(Busy, match="process 1"):
            neighbour.leases()


def test_a_step_does_not_begin_once_another_process_ended_the_replay(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    with control(empty) as first, control(empty) as second:
        replay = first.begin(plan)
        second.change(replay, ReplayState.ABORTED, {})
        begun = []
        with (
            pytest.raises(Overtaken, match=f"replay {replay.id} .* is no longer building"),
            Work(empty.settings, first).step(replay, "submit"),
        ):
            begun.append("submit")
        assert (begun, journal(empty)) == ([], [])


def test_a_version_stays_used_when_its_replay_is_aborted(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    with control(empty) as plane:
        plane.change(plane.begin(plan), ReplayState.ABORTED, {})
        assert plane.versions_used(["per_minute"]) == {1, 2}


def test_commands_without_a_replay_say_what_to_do(empty: Environment) -> None:
    for words in (["verify"], ["promote", "--yes"], ["rollback", "--yes"], ["abort", "--yes"]):
        assert refused(empty, *words) == "no replay is open. `kappa replay build` begins one."


@pytest.mark.parametrize("end", [ReplayState.RETIRED, ReplayState.ABORTED])
def test_a_replay_that_has_ended_is_not_ended_twice(empty: Environment, end: ReplayState) -> None:
    with control(empty) as plane:
        replay = plane.begin(plan_replay(FACTS, Expectation(), from_earliest=False))
        plane.change(replay, end, {})
    verb, other = ("retire", "abort") if end is ReplayState.RETIRED else ("abort", "retire")
    for _ in range(2):
        ended = run(empty, "replay", verb)
        assert ended.returncode == 0, ended.stderr
        assert f"Replay {replay.id} is {end} already; nothing is left to do." in ended.stderr
    assert journal(empty) == []
    assert f"the last, {replay.id}, is {end}" in refused(empty, other, "--yes")


def test_what_was_promoted_is_not_built_again_with_the_same_code(empty: Environment) -> None:
    views = ("page_views_per_minute", "page_views_accounting")
    plan = plan_replay(
        replace(FACTS, views=views, shown=dict.fromkeys(views, 1), columns={}),
        Expectation(),
        from_earliest=False,
    )
    with control(empty) as plane:
        replay = plane.begin(plan)
        plane.write(replay.id, "submit", "done", {"code": code_name(PROJECT_ROOT)})
        live = dict.fromkeys(((view, 2) for view in views), VersionState.LIVE)
        for state in (ReplayState.PROMOTED, ReplayState.RETIRED):
            replay = plane.change(replay, state, live)
            ran = run(empty, "replay", "run", "page_views_per_minute", "--yes")
            assert ran.returncode == 0, ran.stderr
            assert f"Replay {replay.id} built this with the same code and is {state}" in ran.stderr
        assert [one.id for one in plane.replays()] == [replay.id]
    # Nothing is live here, so that it begins to plan is all that can be seen.
    again = refused(empty, "run", "page_views_per_minute", "--yes", "--again")
    assert "nothing is left" not in again


def test_a_view_that_is_not_live_can_not_be_replayed(empty: Environment) -> None:
    assert "did you mean" in refused(empty, "plan", "page_views_per_minut")


def test_without_control_plane_data_flows_and_a_promotion_waits(
    live: Environment, stack: Stack
) -> None:
    env = live
    done(env, "build", "--yes")
    with held(stack, "postgres"):
        sentence = refused(env, "promote", "--yes")
        assert "PostgreSQL, the control plane, does not answer" in sentence
        assert "jobs do without it, and the same command goes on where it stopped" in sentence
        flow(env)
        wait_for(lambda: flowed(env, 1) and flowed(env, 2), 240, "events are in both versions")
        with readers(env, "SELECT count() FROM page_views_per_minute", threads=1) as reading:
            process = start(env, "replay", "promote", "--yes", "--wait", "120")
            assert process.stderr is not None
            assert "Waiting up to 120 s" in process.stderr.readline()
            assert shown(env)["page_views_per_minute"] == 1
            release(stack, "postgres")
            _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert (set(reading.counts()), dict(reading.failures)) == ({(5_459,)}, {})
        assert shown(env)["page_views_per_minute"] == 2
        assert newest(env).state == "promoted"


def test_a_control_plane_that_is_away_amid_a_replay_is_waited_for(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    said: list[str] = []
    with door(empty.settings.postgres) as way:
        way.open()

        def say(text: str) -> None:
            said.append(text)
            way.open()

        there = through(way, empty)
        place = there.postgres, there.namespace, "tests"
        with Control(*place, patience=60, say=say) as plane:
            plane.lock("page_views")
            replay = plane.begin(plan)
            way.shut()
            plane.begin_step(replay, "load", {})
            way.shut()
            plane.write(replay.id, "load", "done", {"records": 3})
            way.shut()
            live = {("per_minute", 2): VersionState.STANDBY}
            built = plane.change(replay, ReplayState.BUILT, live)
            way.shut()
            assert plane.replays() == [built]
            assert built.state is ReplayState.BUILT
            assert plane.version_states()["per_minute", 2] is VersionState.STANDBY
            with control(empty) as other, pytest.raises(Busy):
                other.lock("page_views")
    assert [text.partition(": ")[0] for text in said] == ["Waiting up to 60 s"] * 4
    noted = [(entry.step, entry.state, entry.detail) for entry in journal(empty)]
    assert noted == [("load", "started", {}), ("load", "done", {"records": 3})]


class Unanswered(Control):
    """A control plane whose answer to the first change is lost."""

    answers = False

    def _changed(self, *given: Any) -> ReplayRecord:
        found = super()._changed(*given)
        if self.answers:
            return found
        self.answers = True
        raise ControlUnavailable("the answer is lost.")


def test_a_change_whose_answer_was_lost_is_made_once(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    place = empty.settings.postgres, empty.settings.namespace, "tests"
    with Unanswered(*place, patience=60) as plane:
        replay = plane.begin(plan)
        assert plane.change(replay, ReplayState.BUILT, {}).state is ReplayState.BUILT
        # What another process did meanwhile is no change of ours.
        with pytest.raises(Overtaken):
            plane.change(replay, ReplayState.PROMOTED, {})


def flow(env: Environment) -> None:
    """Write an event to each partition, newer than all before."""
    at = max(one.record.timestamp_ms for one in read_topic(env, env.stream.topic)) + MINUTE
    (schema_id,) = env.registered
    produce(env, [visit(part, at, schema_id, "/flows") for part in range(datasets.PARTITIONS)])


def flowed(env: Environment, version: int) -> bool:
    """Return whether the events written meanwhile are in the table of `version`."""
    table = f"{env.settings.database}.page_views_per_minute_v{version}"
    return rows(env, f"SELECT sum(views) FROM {table} FINAL WHERE page_id = '/flows'") == [
        (datasets.PARTITIONS,)
    ]


@contextlib.contextmanager
def held(stack: Stack, part: str) -> Iterator[None]:
    """Let `part` answer nobody new while the block runs, or until it is released."""
    pid = stack.wait_healthy(part).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def release(stack: Stack, part: str) -> None:
    """Let `part` answer again."""
    (pid,) = (one.pid for one in stack.status() if one.name == part)
    assert pid is not None
    os.kill(pid, signal.SIGCONT)


@pytest.mark.long
def test_a_promotion_that_loses_the_control_plane_leaves_one_version_and_goes_on(
    live: Environment,
) -> None:
    env = live
    done(env, "build", "--yes")
    promote_up_to(env, "record", "started")
    assert (one_version(env), newest(env).state) == (2, "built")
    done(env, "rollback", "--yes")
    assert (one_version(env), newest(env).state) == (1, "rolled_back")
    for step, state, left in (
        ("prepare names", "started", 1),
        ("switch", "started", 1),
        ("switch", "done", 2),
        ("record", "started", 2),
        ("record", "changed", 2),
    ):
        before = newest(env)
        promote_up_to(env, step, state)
        assert (one_version(env), newest(env)) == (left, before)
        done(env, "promote", "--yes")
        assert (one_version(env), newest(env).state) == (2, "promoted")
        done(env, "rollback", "--yes")
        assert (one_version(env), newest(env).state) == (1, "rolled_back")


def promote_up_to(env: Environment, step: str, state: str) -> None:
    """Promote the newest replay; the control plane is lost just before it hears of that state."""
    with door(env.settings.postgres) as way:
        way.open()
        there = through(way, env)
        with (
            ShutAt(there, way, (f"promote: {step}", state)) as plane,
            pytest.raises(ControlUnavailable, match="the same command goes on"),
        ):
            promote(Work(there, plane), newest(env))


def test_what_happened_while_a_question_waited_is_not_promoted_over(live: Environment) -> None:
    env = live
    done(env, "build", "--yes")
    with asked(env, "promote") as (asking, answer):
        busy = refused(env, "abort", "--yes")
        assert "another process changes the replay of page_views at the moment" in busy
        assert f"process {asking.pid}" in busy
        cut_off(env, asking.pid)
        assert done(env, "abort", "--yes")["state"] == "aborted"
        answer("y")
        _, errors = asking.communicate(timeout=120)
    assert (asking.returncode, newest(env).state, one_version(env)) == (1, "aborted", 1)
    assert "PostgreSQL, the control plane, does not answer" in errors
    assert "Traceback" not in errors
    assert f"the last, {newest(env).id}, is aborted" in refused(env, "promote", "--yes")


def test_a_loader_that_holds_dropped_topics_is_named(empty: Environment) -> None:
    create_topic(empty)
    topic, group = empty.stream.topic, group_of(empty.settings)
    reader = Consumer({"bootstrap.servers": empty.settings.kafka, "group.id": group})
    reader.subscribe([topic])
    wait_for(lambda: reader.poll(0.1) or reader.assignment(), 60, "it has its partitions")
    with pytest.raises(LoaderHolds, match=f"a loader reads {topic} still, 0.5 s after"):
        await_loader_gone(empty.settings, [topic], 0.5)
    await_loader_gone(empty.settings, ["views.other.v1"], 0.5)
    reader.close()
    await_loader_gone(empty.settings, [topic])


def through(way: Door, env: Environment) -> Settings:
    """Return the namespace's settings with the door as the way to PostgreSQL."""
    # Not a copy of them: that would keep the address which is known already.
    return Settings(**{**env.settings.model_dump(), "postgres_dsn": SecretStr(way.dsn)})


class ShutAt(Control):
    """A control plane that is lost just before it hears of one state of one step."""

    def __init__(self, settings: Settings, way: Door, at: tuple[str, str]) -> None:
        super().__init__(settings.postgres, settings.namespace, "tests")
        self._way, self._at = way, at

    def begin_step(self, replay: ReplayRecord, step: str, detail: Mapping[str, Any]) -> None:
        self._hear(step, "started")
        super().begin_step(replay, step, detail)

    def write(self, replay_id: int, step: str, state: str, detail: Mapping[str, Any]) -> None:
        self._hear(step, state)
        super().write(replay_id, step, state, detail)

    def change(self, *given: Any) -> ReplayRecord:
        self._hear("promote: record", "changed")
        return super().change(*given)

    def _hear(self, *now: str) -> None:
        if now == self._at:
            self._way.shut()


@contextlib.contextmanager
def asked(
    env: Environment, *words: str
) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], int]]]:
    """Start `kappa replay` with `words` at a terminal; give it, and how to answer its question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "replay", *words],
        env=os.environ | env.settings.environment(),
        cwd=PROJECT_ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "[y/N]" not in said:
        said += (more := process.stderr.read(1))
        assert more, said
    try:
        yield process, lambda text: os.write(ours, f"{text}\n".encode())
    finally:
        process.kill()
        process.communicate()
        os.close(ours)
        os.close(theirs)


def cut_off(env: Environment, pid: int) -> None:
    """Have PostgreSQL end the connection of process `pid`, as a restart of it would."""
    with control(env) as plane, plane.transaction() as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) AS ended FROM pg_stat_activity"
            " WHERE application_name LIKE %s",
            (f"%, process {pid}",),
        ).fetchall()
    assert [row["ended"] for row in ended] == [True]
