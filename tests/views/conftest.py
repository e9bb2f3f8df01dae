"""Worlds for the view tests, in which every domain's job runs.

In one the events come in disorder, one of each stream too late and one broken, and a TaskManager
dies; in the other they come in order.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import Stack
from jobs.catalogue import job_named
from tests.harness import Environment, environment, flink, start_loader, wait_for
from tests.views.domains import DOMAINS
from tests.views.world import Sender

DEADLINE = 240.0


@dataclass(frozen=True)
class World:
    """Namespaces, by domain, in which its events were sent, the last of them closing all.

    Domains whose jobs read the same topic have different ones. `apart` are, by domain and topic,
    the values of the records that came too late or are broken.
    """

    envs: dict[str, Environment]
    job_ids: dict[str, str]
    expected: dict[str, Mapping[str, list[tuple[Any, ...]]]]
    apart: dict[str, dict[str, list[bytes | None]]]


@pytest.fixture(scope="package", params=["killed", pytest.param("ordered", marks=pytest.mark.long)])
def world(request: pytest.FixtureRequest, stack: Stack) -> Iterator[World]:
    """Run the domains that are tested: half of the events, kill -9 of the TaskManager, the rest.

    What is too late or broken comes before the kill. Ordered, nothing is late and nothing killed.
    """
    in_order = request.param == "ordered"
    wanted = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.path.is_relative_to(Path(__file__).parent)
        and "world" in item.fixturenames
        and item.callspec.params["world"] == request.param
    }
    with ExitStack() as open_until_end:
        senders: dict[str, Sender] = {}
        envs: list[Environment] = []
        for group in _apart(wanted):
            env = open_until_end.enter_context(environment(stack, checkpoint_seconds=5.0))
            envs.append(env)
            senders |= {name: Sender(env, DOMAINS[name], in_order=in_order) for name in group}
        job_ids = {}
        for name, sender in senders.items():
            sender.prepare()
            job_ids[name] = sender.env.jobs[sender.job_name] = sender.submit()
        for env in envs:
            start_loader(env)
        for sender in senders.values():
            sender.send(0, 2)
            if not in_order:
                sender.send_late()
                sender.send_broken()
        killed = 0 if in_order else _kill_taskmanager(stack, senders, job_ids)
        for sender in senders.values():
            sender.send(1, 2)
            sender.close()
        stack.wait_healthy("taskmanager", other_than=killed)
        expected = {name: sender.expected() for name, sender in senders.items()}
        apart = {name: _set_apart(sender) for name, sender in senders.items()}
        yield World({name: s.env for name, s in senders.items()}, job_ids, expected, apart)


def _apart(names: Collection[str]) -> list[list[str]]:
    """Return the domains of `names` in groups of which none has a topic twice."""
    groups: list[tuple[list[str], set[str]]] = []
    for name in (name for name in DOMAINS if name in names):
        topics = {stream.topic for stream in job_named(DOMAINS[name].JOB).streams}
        group = next((group for group in groups if not group[1] & topics), None)
        if group is None:
            group = [], set()
            groups.append(group)
        group[0].append(name)
        group[1].update(topics)
    return [found for found, _ in groups]


def _set_apart(sender: Sender) -> dict[str, list[bytes | None]]:
    found: dict[str, list[bytes | None]] = {}
    for name, stream in sender.streams.items():
        found[stream.late_topic()] = [record.value for record in sender.late[name]]
        found[stream.dead_letter_topic()] = [record.value for record in sender.broken[name]]
    return found


def _kill_taskmanager(stack: Stack, senders: dict[str, Sender], job_ids: dict[str, str]) -> int:
    """Kill it once each job has a checkpoint with what was sent; return its process id."""
    for name, sender in senders.items():
        _checkpoint(sender.env, job_ids[name])
    pid = stack.wait_healthy("taskmanager").pid
    os.kill(pid, signal.SIGKILL)
    return pid


def _checkpoint(env: Environment, job_id: str) -> None:
    """Wait until a checkpoint has completed that began after this call."""
    path = f"/jobs/{job_id}/checkpoints"
    before = flink(env, path)["counts"]["completed"]
    wait_for(
        lambda: flink(env, path)["counts"]["completed"] >= before + 2,
        DEADLINE,
        f"two more checkpoints of {job_id}",
    )
