"""Worlds for the view tests, in which every domain's job runs.

In one the events come in disorder, one of each stream too late, and a TaskManager dies; in the
other they come in order.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.stack import Stack
from tests.harness import Environment, environment, flink, start_loader, wait_for
from tests.views.domains import DOMAINS
from tests.views.world import Sender

DEADLINE = 240.0


@dataclass(frozen=True)
class World:
    """A namespace in which every domain's events were sent, the last of them closing all.

    `late` are, by domain and topic, the values of the events that came too late.
    """

    env: Environment
    job_ids: dict[str, str]
    expected: dict[str, Mapping[str, list[tuple[Any, ...]]]]
    late: dict[str, dict[str, list[bytes | None]]]


@pytest.fixture(scope="package", params=["killed", pytest.param("ordered", marks=pytest.mark.long)])
def world(request: pytest.FixtureRequest, stack: Stack) -> Iterator[World]:
    """Run the domains that are tested: half of the events, kill -9 of the TaskManager, the rest.

    What is too late comes before the kill. Ordered, nothing is late and nothing killed.
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
    with environment(stack, checkpoint_seconds=5.0) as env:
        senders = {
            name: Sender(env, domain, in_order=in_order)
            for name, domain in DOMAINS.items()
            if name in wanted
        }
        job_ids = {}
        for name, sender in senders.items():
            sender.prepare()
            job_ids[name] = env.jobs[sender.job_name] = sender.submit()
        start_loader(env)
        for sender in senders.values():
            sender.send(0, 2)
            if not in_order:
                sender.send_late()
        killed = 0 if in_order else _kill_taskmanager(env, stack, job_ids)
        for sender in senders.values():
            sender.send(1, 2)
            sender.close()
        stack.wait_healthy("taskmanager", other_than=killed)
        expected = {name: sender.expected() for name, sender in senders.items()}
        late = {name: _late_values(sender) for name, sender in senders.items()}
        yield World(env, job_ids, expected, late)


def _late_values(sender: Sender) -> dict[str, list[bytes | None]]:
    return {
        stream.late_topic(): [record.value for record in sender.late[name]]
        for name, stream in sender.streams.items()
    }


def _kill_taskmanager(env: Environment, stack: Stack, job_ids: dict[str, str]) -> int:
    """Kill it once each job has a checkpoint with what was sent; return its process id."""
    for job_id in job_ids.values():
        _checkpoint(env, job_id)
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
