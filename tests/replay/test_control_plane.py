"""Leases, locks and a control plane that is down."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic import SecretStr

from replay.control import Busy, Control, LeaseTaken, Overtaken
from replay.differences import Expectation
from replay.plan import plan_replay
from replay.records import ReplayState
from tests.harness import Environment
from tests.replay.running import control, done, newest, readers, refused, shown, start
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


def test_a_version_stays_used_when_its_replay_is_aborted(empty: Environment) -> None:
    plan = plan_replay(FACTS, Expectation(), from_earliest=False)
    with control(empty) as plane:
        plane.change(plane.begin(plan), ReplayState.ABORTED, {})
        assert plane.versions_used(["per_minute"]) == {1, 2}


def test_commands_without_a_replay_say_what_to_do(empty: Environment) -> None:
    for words in (["verify"], ["promote", "--yes"], ["rollback", "--yes"], ["abort", "--yes"]):
        assert refused(empty, *words) == "no replay is open. `kappa replay build` begins one."


def test_a_view_that_is_not_live_can_not_be_replayed(empty: Environment) -> None:
    assert "did you mean" in refused(empty, "plan", "page_views_per_minut")


def test_without_control_plane_data_flows_and_a_promotion_waits(live: Environment) -> None:
    env = live
    done(env, "build", "--yes")
    with door(env.settings.postgres) as (dsn, open_door):
        away = env.settings.model_copy(update={"postgres_dsn": SecretStr(dsn)})
        env.settings = away
        sentence = refused(env, "promote", "--yes")
        assert "PostgreSQL, the control plane, does not answer" in sentence
        assert "data flows on, and the same command goes on where it stopped" in sentence
        with readers(env, "SELECT count() FROM page_views_per_minute", threads=1) as reading:
            process = start(env, "replay", "promote", "--yes", "--wait", "120")
            assert process.stderr is not None
            assert "Waiting up to 120 s" in process.stderr.readline()
            assert shown(env)["page_views_per_minute"] == 1
            open_door()
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert (set(reading.counts()), dict(reading.failures)) == ({(5_458,)}, {})
        assert shown(env)["page_views_per_minute"] == 2
        assert newest(env).state == "promoted"


@contextlib.contextmanager
def door(dsn: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Give a DSN that leads to PostgreSQL only once the door is opened."""
    target = conninfo_to_dict(dsn)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, _ = listener.accept()
                outer = socket.create_connection((str(target["host"]), int(str(target["port"]))))
                threading.Thread(target=pump, args=(inner, outer), daemon=True).start()
                threading.Thread(target=pump, args=(outer, inner), daemon=True).start()

    def open_door() -> None:
        listener.listen()
        threading.Thread(target=serve, daemon=True).start()

    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=port), open_door
    finally:
        listener.close()
