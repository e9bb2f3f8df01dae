"""Many events for a long time with a fault every half minute: differences 0, memory flat.

make soak MINUTES=30 RATE=20000
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing import get_context
from typing import Annotated

import numpy as np
import pandas as pd
import psutil
import typer

from bench.workload import Workload, batches, fill_live
from deploy.console import OUT, print_table
from deploy.processes import members
from deploy.settings import Settings
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS
from schemas.topics import end_offsets
from tests.faults import faults
from tests.faults.scene import Scene, Watcher
from tests.harness import Environment, environment, rows, wait_for
from tests.own_stack import own_stack

BY_PAGE, OF_SITE = "page_views_per_minute", "site_traffic_per_minute"
FAULTS = (
    faults.kill_taskmanager,
    faults.kill_jobmanager,
    faults.kill_python_worker,
    faults.kill_broker,
    faults.kill_registry,
    faults.kill_clickhouse,
    faults.kill_postgres,
    faults.kill_loader,
    faults.pause_broker,
    faults.pause_taskmanager,
    faults.pause_clickhouse,
    faults.zombie_loader,
)
_MIB = 2**20
_SETTLE_SECONDS = 900.0
_MINUTE_MS = 60_000

Expected = dict[tuple[int, str], tuple[int, int, float | None, int]]
"""Views, unique users, mean duration, errors by (start of the minute in epoch ms, page or "")."""


@dataclass
class Memory:
    """Resident memory of each part over time, in MiB; a part is all of its processes."""

    stack_home: Settings
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def watch(self, parts: Sequence[str], env: Environment, ended: threading.Event) -> None:
        """Note the memory of `parts` and of the loader every five seconds."""
        began = time.monotonic()
        while not ended.wait(5):
            at = (time.monotonic() - began) / 60
            for part in parts:
                self.samples[part].append((at, _resident(members(self.stack_home.home, [part]))))
            if env.loader is not None:
                self.samples["loader"].append((at, _resident([_process(env.loader.pid)])))

    def growth(self, part: str) -> tuple[float, float, float]:
        """Return a part's memory at half time and at the end, and the slope in MiB a minute."""
        at, mib = np.array(self.samples[part]).T
        later = at >= at[-1] / 2
        slope = float(np.polyfit(at[later], mib[later], 1)[0]) if later.sum() > 2 else 0.0
        quarter = at >= at[-1] * 0.75
        middle = later & ~quarter
        return float(np.median(mib[middle])), float(np.median(mib[quarter])), slope


def main(
    minutes: Annotated[float, typer.Option(min=0.5)] = 30.0,
    rate: Annotated[int, typer.Option(min=50, help="Events a second.")] = 20_000,
    every: Annotated[float, typer.Option(min=1, help="Seconds from fault to fault.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
) -> None:
    """Send events, bring about faults, and compare every row at the end.

    Example: python -m tests.faults.soak --minutes 5 --rate 5000
    """
    with own_stack() as stack:
        stack.up()
        with environment(stack) as env:
            scene = Scene(stack, env, random.Random(seed))
            workload = Workload(
                events=round(minutes * 60 * rate),
                per_second=rate,
                seed=seed,
                start_ms=round(time.time() * 1000) - 8_000,
                disorder=timedelta(seconds=8),
            )
            happened, memory = _run(scene, workload, minutes, every)
            differences = _differences(env, workload)
    again = f"make soak MINUTES={minutes:g} RATE={rate} EVERY={every:g} SEED={seed}"
    _tell(workload, happened, memory, differences)
    if differences:
        OUT.print(f"Repeat it with: {again}", highlight=False)
        raise typer.Exit(1)


def _run(
    scene: Scene, workload: Workload, minutes: float, every: float
) -> tuple[Counter[str], Memory]:
    env = scene.env
    scene.begin(views=(BY_PAGE, OF_SITE))
    feeder = get_context("spawn").Process(target=feed, args=(env.settings, workload), daemon=True)
    memory, ended = Memory(scene.stack.settings), threading.Event()
    parts = [part.name for part in scene.stack.parts if part.name != "loader"]
    noting = threading.Thread(target=memory.watch, args=(parts, env, ended), daemon=True)
    happened: Counter[str] = Counter()
    with Watcher(env, (OF_SITE,)) as watcher:
        feeder.start()
        noting.start()
        ends = time.monotonic() + minutes * 60
        while (left := ends - time.monotonic()) > 0:
            ended.wait(min(every, left))
            if time.monotonic() + 10 < ends:
                fault, began = scene.chance.choice(FAULTS), time.monotonic()
                fault(scene)
                happened[fault.__name__] += 1
                took = time.monotonic() - began
                said = f"{left / 60:5.1f} min left: {fault.__name__}, over after {took:.0f} s"
                OUT.print(said, highlight=False)
        feeder.join(600)
        assert feeder.exitcode == 0, "the producer gave up"
        _await_all(env, workload)
        ended.set()
        noting.join()
    assert watcher.faults == [], watcher.faults[:5]
    return happened, memory


def feed(settings: Settings, workload: Workload) -> None:
    """Send `workload` at its own pace, in a process of its own."""
    stream = replace(PAGE_VIEWS, namespace=settings.namespace)
    with Registry(**settings.registry_access, retry_for=120.0) as registry:
        fill_live(settings.kafka_client, registry, stream, workload)


def _await_all(env: Environment, workload: Workload) -> None:
    there = sum(end_offsets(env.settings.kafka_client, env.stream.topic).values())
    assert there == workload.events, f"{there:,} events stand in the topic"
    counted = f"SELECT sum(views) FROM {env.settings.database}.{OF_SITE}"
    wait_for(
        lambda: int(rows(env, counted)[0][0]),
        _SETTLE_SECONDS,
        f"all {workload.events:,} events are counted",
        until=lambda found: found >= workload.events,
    )


def expected(workload: Workload) -> Iterator[tuple[str, Expected]]:
    """Yield view by view what its rows must be: a group-by in pandas, some minutes at a time."""
    by_page: Expected = {}
    of_site: Expected = {}
    kept: list[pd.DataFrame] = []
    size = max(1, round(workload.per_second / 50))
    columns = ["event_time", "page_id", "user_id", "duration_ms", "status"]
    for number, batch in enumerate(batches(workload, size)):
        kept.append(batch.select(columns).to_pandas())
        if number % 3_000 == 2_999:
            events = pd.concat(kept, ignore_index=True)
            # None before the newest minute but one can come any more.
            is_open = _minutes(events) > _minutes(events).max() - 2 * _MINUTE_MS
            _count(events[~is_open], by_page, of_site)
            kept = [events[is_open]]
    _count(pd.concat(kept, ignore_index=True), by_page, of_site)
    yield BY_PAGE, by_page
    yield OF_SITE, of_site


def _minutes(events: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    times = events["event_time"].to_numpy().astype(np.int64)
    minutes: np.ndarray[tuple[int], np.dtype[np.int64]] = times - times % _MINUTE_MS
    return minutes


def _count(events: pd.DataFrame, by_page: Expected, of_site: Expected) -> None:
    events = events.assign(window=_minutes(events), error=events["status"] >= 500)
    for found, page in ((by_page, events["page_id"]), (of_site, "")):
        grouped = events.assign(page=page).groupby(["window", "page"], sort=False)
        counts = pd.DataFrame(
            {
                "views": grouped.size(),
                "users": grouped["user_id"].nunique(),
                "mean": grouped["duration_ms"].mean(),
                "errors": grouped["error"].sum(),
            }
        )
        for key, views, users, mean, errors in counts.itertuples():
            assert key not in found, "a minute was closed too early"
            found[key] = views, users, None if pd.isna(mean) else mean, errors


def _differences(env: Environment, workload: Workload) -> int:
    """Return how many rows of the views differ, and late or dead events there are."""
    count = 0
    for view, wanted in expected(workload):
        page = "page_id" if view == BY_PAGE else "''"
        found = {
            (int(start) * 1000, str(name)): (views, users, mean, errors)
            for start, name, views, users, mean, errors in rows(
                env,
                f"SELECT toUnixTimestamp(window_start), {page}, views, unique_users, "
                f"avg_duration_ms, errors FROM {env.settings.database}.{view}",
            )
        }
        count += sum(
            not _same(found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys()
        )
    for table in ("dead_letters", "late_events"):
        count += int(rows(env, f"SELECT count() FROM {env.settings.database}.{table}")[0][0])
    return count


def _same(one: Sequence[float | None] | None, other: Sequence[float | None] | None) -> bool:
    if one is None or other is None:
        return False
    # A mean is a sum of whole numbers by a count, whose last bit the order of adding decides.
    return all(
        a == b or (a and b and abs(a - b) < 1e-9 * b) for a, b in zip(one, other, strict=True)
    )


def _tell(workload: Workload, happened: Counter[str], memory: Memory, differences: int) -> None:
    OUT.print(
        f"{workload.events:,} events at {workload.per_second:,.0f}/s, {happened.total()} faults, "
        f"{differences} differences.",
        highlight=False,
    )
    print_table("Faults", ("fault", "times"), sorted(happened.items()))
    growth = {part: memory.growth(part) for part in sorted(memory.samples)}
    print_table(
        "Resident memory, MiB",
        ("part", "third quarter", "last quarter", "a minute"),
        [(part, *(round(mib, 1) for mib in found)) for part, found in growth.items()],
    )


def _resident(processes: Sequence[psutil.Process | None]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss if process is not None else 0
        except psutil.NoSuchProcess:
            continue
    return total / _MIB


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


if __name__ == "__main__":
    typer.run(main)
