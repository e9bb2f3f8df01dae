"""Disks that are full: what can't be written is told, and once there is room all goes on.

Checkpoints, the broker and ClickHouse have a small disk each, which takes the right to mount.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import RawIOBase
from pathlib import Path

import pytest

from deploy.flink import place_of
from tests.faults.faults import CHECKPOINT_SECONDS
from tests.faults.scene import BACK_SECONDS, Scene
from tests.harness import environment, kappa, wait_for
from tests.own_stack import own_stack

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_MIB = 2**20
_SIZES = {"checkpoints": 64, "kafka": 400, "clickhouse": 400}
_FULL = "No space left on device"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with own_stack() as stack, ExitStack() as disks:
        for folder, mib in folders_of(stack.settings.home).items():
            disks.enter_context(small_disk(folder, mib))
        disks.callback(stack.down)
        stack.up()
        with environment(stack) as env:
            found = Scene(stack, env, random.Random(5))
            found.begin(checkpoint_timeout_seconds=CHECKPOINT_SECONDS)
            yield found


def folders_of(home: Path) -> dict[Path, int]:
    data = home / "data"
    places = {"checkpoints": data / "flink" / "checkpoints"}
    return {places.get(name, data / name): mib for name, mib in _SIZES.items()}


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0777", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Have no byte left on the disk of `folder`; afterwards there is room again.

    What others delete meanwhile makes no room: it is taken at once.
    """
    ballast, ended = folder / "ballast", threading.Event()

    def fill(file: RawIOBase) -> None:
        for block in (_MIB, 4096):
            with suppress(OSError):
                while not ended.is_set():
                    file.write(bytes(block))

    def keep_full(file: RawIOBase) -> None:
        while not ended.wait(0.05):
            fill(file)

    with ballast.open("wb", buffering=0) as file:
        filler = threading.Thread(target=keep_full, args=(file,), daemon=True)
        filler.start()
        try:
            wait_for(lambda: shutil.disk_usage(folder).free == 0, 60, "the disk is full")
            yield
        finally:
            ended.set()
            filler.join()
            ballast.unlink()


def test_full_disk_of_checkpoints(scene: Scene) -> None:
    log = scene.stack.place.log("jobmanager")
    before = told_in(log)
    with scene.under_way(), full(place_of(scene.env.settings) / "checkpoints"):
        wait_for(
            lambda: told_in(log), BACK_SECONDS, "the log tells why", until=lambda now: now > before
        )
        wait_for(
            scene.problems,
            BACK_SECONDS,
            "the status tells",
            until=lambda text: "its newest checkpoint failed" in text,
        )


def test_full_disk_of_the_broker(scene: Scene) -> None:
    log = scene.stack.place.log("kafka")
    before = told_in(log)
    with scene.under_way(12_000), full(scene.stack.place.data("kafka")):
        wait_for(
            lambda: told_in(log), BACK_SECONDS, "the log tells why", until=lambda now: now > before
        )
        wait_for(lambda: state_of(scene, "kafka") != "healthy", BACK_SECONDS, "it does not go on")
        assert "kafka" in {part["name"] for part in ailing(scene)}
    scene.stack.wait_healthy("kafka", BACK_SECONDS)


def test_full_disk_of_clickhouse(scene: Scene) -> None:
    log = scene.env.logs / f"loader-{scene.env.settings.namespace}.log"
    with scene.under_way(), full(scene.stack.place.data("clickhouse")):
        wait_for(lambda: told_in(log), BACK_SECONDS, "the loader tells why")


def told_in(log: Path) -> int:
    """Return how often a log says that there is no space."""
    text = log.read_text(errors="replace")
    return text.count(_FULL) + text.count("NOT_ENOUGH_SPACE")


def state_of(scene: Scene, part: str) -> str:
    return next(one.state for one in scene.stack.status() if one.name == part)


def ailing(scene: Scene) -> list[dict[str, str]]:
    """Return the parts of which `kappa status` says that they are not well."""
    return [part for part in kappa(scene.env, "status")["parts"] if part["state"] != "healthy"]
