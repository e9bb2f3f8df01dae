"""Disks that are full: what can't be written is told, and once there is room all goes on.

Checkpoints, the broker and ClickHouse have a small disk each, which takes the right to mount.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    """Have no byte left on the disk of `folder`; afterwards there is room again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (_MIB, 4096):
            with suppress(OSError):
                while True:
                    file.write(bytes(block))
    assert shutil.disk_usage(folder).free == 0
    try:
        yield
    finally:
        ballast.unlink()


def test_full_disk_of_checkpoints(scene: Scene) -> None:
    with scene.under_way(), full(place_of(scene.env.settings) / "checkpoints"):
        wait_for(lambda: job_failure(scene), BACK_SECONDS, "the job tells why", has_no_space)


def test_full_disk_of_the_broker(scene: Scene) -> None:
    log = scene.stack.place.log("kafka")
    before = log.read_text(errors="replace").count(_FULL)
    with scene.under_way(12_000), full(scene.stack.place.data("kafka")):
        wait_for(
            lambda: log.read_text(errors="replace").count(_FULL) > before,
            BACK_SECONDS,
            "the broker's log tells why",
        )
        wait_for(lambda: state_of(scene, "kafka") != "healthy", BACK_SECONDS, "it does not go on")
        assert "kafka" in {part["name"] for part in ailing(scene)}
    scene.stack.wait_healthy("kafka", BACK_SECONDS)


def test_full_disk_of_clickhouse(scene: Scene) -> None:
    log = scene.env.logs / f"loader-{scene.env.settings.namespace}.log"
    with scene.under_way(), full(scene.stack.place.data("clickhouse")):
        wait_for(
            lambda: log.read_text(errors="replace"), BACK_SECONDS, "the loader says", has_no_space
        )


def has_no_space(text: str) -> bool:
    return _FULL in text or "NOT_ENOUGH_SPACE" in text


def job_failure(scene: Scene) -> str:
    jobs = kappa(scene.env, "status")["jobs"]
    return str(next(job for job in jobs if job["name"] == scene.env.job_name)["failure"])


def state_of(scene: Scene, part: str) -> str:
    return next(one.state for one in scene.stack.status() if one.name == part)


def ailing(scene: Scene) -> list[dict[str, str]]:
    """Return the parts of which `kappa status` says that they are not well."""
    return [part for part in kappa(scene.env, "status")["parts"] if part["state"] != "healthy"]
