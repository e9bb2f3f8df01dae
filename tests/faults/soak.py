"""Many events for a long time with a fault every half minute: differences 0, memory flat.

make soak MINUTES=30 RATE=20000
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from multiprocessing import get_context
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from bench.workload import Workload, batches, fill_live
from deploy.console import ERR, OUT, print_json, print_table
from deploy.settings import Settings
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS
from schemas.topics import end_offsets
from tests.faults import faults
from tests.faults.memory import WARM_UP_MINUTES, Memory
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
_SETTLE_SECONDS = 900.0
_MINUTE_MS = 60_000

Expected = dict[tuple[int, str], tuple[int, int, float | None, int]]
"""Views, unique users, mean duration, errors by (start of the minute in epoch ms, page or "")."""


@dataclass(frozen=True)
class Happened:
    """A fault, the minute of the run in which it began, and how long it took to be over."""

    minute: float
    fault: str
    seconds: float


def main(
    minutes: Annotated[float, typer.Option(min=0.5)] = 30.0,
    rate: Annotated[int, typer.Option(min=50, help="Events a second.")] = 20_000,
    every: Annotated[float, typer.Option(min=1, help="Seconds from fault to fault.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all samples.")] = False,
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
    if as_json:
        print_json(_document(workload, happened, memory, differences))
    else:
        _tell(workload, happened, memory, differences)
    if differences:
        ERR.print(f"Repeat it with: {again}", highlight=False)
        raise typer.Exit(1)


def _run(
    scene: Scene, workload: Workload, minutes: float, every: float
) -> tuple[list[Happened], Memory]:
    env = scene.env
    scene.begin(views=(BY_PAGE, OF_SITE))
    feeder = get_context("spawn").Process(target=feed, args=(env.settings, workload), daemon=True)
    memory, ended = Memory(), threading.Event()
    noting = threading.Thread(target=memory.watch, args=(scene.stack, env, ended), daemon=True)
    happened: list[Happened] = []
    with Watcher(env, (OF_SITE,)) as watcher:
        feeder.start()
        noting.start()
        ends = time.monotonic() + minutes * 60
        while (left := ends - time.monotonic()) > 0:
            ended.wait(min(every, left))
            if time.monotonic() + 10 < ends:
                happened.append(_bring_about(scene, memory))
        feeder.join(600)
        assert feeder.exitcode == 0, "the producer gave up"
        _await_all(env, workload)
        ended.set()
        noting.join()
    assert watcher.faults == [], watcher.faults[:5]
    return happened, memory


def _bring_about(scene: Scene, memory: Memory) -> Happened:
    fault, began = scene.chance.choice(FAULTS), time.time()
    fault(scene)
    done = Happened((began - memory.began) / 60, fault.__name__, time.time() - began)
    said = f"minute {done.minute:4.1f}: {done.fault}, over after {done.seconds:.0f} s"
    ERR.print(said, highlight=False)
    return done


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


def _tell(
    workload: Workload, happened: Sequence[Happened], memory: Memory, differences: int
) -> None:
    OUT.print(
        f"{workload.events:,} events at {workload.per_second:,.0f}/s, {len(happened)} faults, "
        f"{differences} differences.",
        highlight=False,
    )
    times = Counter(each.fault for each in happened)
    print_table("Faults", ("fault", "times"), sorted(times.items()))
    print_table(
        f"Resident memory in MiB, medians, from {WARM_UP_MINUTES:g} minutes after each start on",
        ("process", "starts", "first third", "last third", "growth", "longest life", "a minute"),
        [
            (
                name,
                found.restarts + 1,
                found.first_third,
                found.last_third,
                found.grown,
                f"{found.longest:.0f} min",
                found.slope,
            )
            for name, found in memory.growths().items()
        ],
    )


def _document(
    workload: Workload, happened: Sequence[Happened], memory: Memory, differences: int
) -> dict[str, Any]:
    return {
        "events": workload.events,
        "per_second": workload.per_second,
        "differences": differences,
        "minutes": memory.minutes,
        "warm_up_minutes": WARM_UP_MINUTES,
        "faults": [asdict(each) for each in happened],
        "memory": {
            name: {
                **asdict(found),
                "grown": found.grown,
                "samples": [asdict(sample) for sample in memory.samples[name]],
            }
            for name, found in memory.growths().items()
        },
    }


if __name__ == "__main__":
    typer.run(main)
