"""The faults, by name: each happens while events come in, and is over when it returns."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from tests.faults.scene import BACK_SECONDS, Scene
from tests.harness import (
    produce,
    python_workers,
    standing_still,
    start_loader,
    stop_loader,
    wait_for,
)

Fault = Callable[[Scene], None]

_PAUSE_SECONDS = 20.0
_PARTS = ("taskmanager", "jobmanager", "kafka", "registry", "clickhouse", "postgres")


def kill_taskmanager_after_each_checkpoint(scene: Scene) -> None:
    """The TaskManager dies right after each of two checkpoints."""
    for _ in range(2):
        scene.await_checkpoint()
        scene.kill("taskmanager")


def kill_taskmanager(scene: Scene) -> None:
    """The TaskManager dies in whatever it does."""
    scene.kill("taskmanager")


def kill_jobmanager(scene: Scene) -> None:
    """The JobManager dies; its jobs resume."""
    scene.kill("jobmanager")


def kill_python_worker(scene: Scene) -> None:
    """A process that runs Python functions dies under its TaskManager."""
    workers = wait_for(lambda: python_workers(scene.stack), BACK_SECONDS, "Python functions run")
    scene.chance.choice(workers).kill()


def kill_broker(scene: Scene) -> None:
    """The only Kafka broker dies."""
    scene.kill("kafka")


def kill_registry(scene: Scene) -> None:
    """The schema registry dies."""
    scene.kill("registry")


def kill_clickhouse(scene: Scene) -> None:
    """The ClickHouse endpoint dies."""
    scene.kill("clickhouse")


def kill_postgres(scene: Scene) -> None:
    """PostgreSQL dies, with which the journal of replays goes for a while."""
    scene.kill("postgres")


def kill_loader(scene: Scene) -> None:
    """The loader dies in whatever it does, and another takes over."""
    scene.replace_loader(signal.SIGKILL)


def kill_everything(scene: Scene) -> None:
    """All die at once, the loader too."""
    stop_loader(scene.env, signal.SIGKILL)
    scene.kill(*_PARTS)
    start_loader(scene.env)


def pause_broker(scene: Scene) -> None:
    """The broker says nothing for 20 s."""
    scene.pause("kafka", _PAUSE_SECONDS)


def pause_taskmanager(scene: Scene) -> None:
    """The TaskManager and its workers stand still for 20 s."""
    scene.pause("taskmanager", _PAUSE_SECONDS)


def pause_clickhouse(scene: Scene) -> None:
    """The ClickHouse endpoint says nothing for 20 s."""
    scene.pause("clickhouse", _PAUSE_SECONDS)


def zombie_loader(scene: Scene) -> None:
    """A loader stands still, another takes its place, and the first wakes up again."""
    zombie = scene.env.loader
    assert zombie is not None
    # One that has only just been started does not know yet how it is told to stop.
    wait_for(lambda: catches(zombie.pid, signal.SIGTERM), BACK_SECONDS, "the loader has begun")
    zombie.send_signal(signal.SIGSTOP)
    start_loader(scene.env)
    try:
        scene.await_loaded()
    finally:
        zombie.send_signal(signal.SIGCONT)
        zombie.send_signal(signal.SIGTERM)
        code = zombie.wait(60)
    assert code == 0, f"the loader that woke up ended with exit code {code}"


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def pause_registry_with_a_cold_cache(scene: Scene) -> None:
    """The registry says nothing for 20 s while events come with a schema nobody knows yet."""
    events = scene.of_unheard_schema()
    with scene.paused("registry"):
        produce(scene.env, events)
        threading.Event().wait(_PAUSE_SECONDS)


def time_out_checkpoints(scene: Scene) -> None:
    """Python workers stand still until a checkpoint has taken longer than it may."""
    workers = wait_for(lambda: python_workers(scene.stack), BACK_SECONDS, "Python functions run")
    with standing_still(workers):
        scene.await_expired_checkpoint()


def strange_records(scene: Scene) -> None:
    """Tombstones, the same events twice, and events of 1970, of before it and of 2036 come in."""
    scene.send_strange_records()
    scene.refuse_the_future()


def rescale(scene: Scene) -> None:
    """The job goes on from a savepoint with one, two, four and one subtasks again."""
    for parallelism in (1, 2, 4, 1):
        scene.upgrade(parallelism)


def add_partition(scene: Scene) -> None:
    """The events topic gets a partition, and the partition events."""
    scene.add_partition()


def lose_checkpoint_storage(scene: Scene) -> None:
    """Checkpoints can be neither written nor read for a while."""
    with scene.checkpoints_away():
        scene.await_unreadable_checkpoints()


CHECKPOINT_SECONDS = 60.0
"""How long a checkpoint may take in these scenes."""

FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_taskmanager_after_each_checkpoint,
        kill_jobmanager,
        kill_python_worker,
        kill_broker,
        kill_registry,
        kill_clickhouse,
        kill_postgres,
        kill_loader,
        kill_everything,
        pause_broker,
        pause_taskmanager,
        pause_clickhouse,
        zombie_loader,
        pause_registry_with_a_cold_cache,
        strange_records,
        add_partition,
        lose_checkpoint_storage,
        time_out_checkpoints,
        rescale,
    )
}
