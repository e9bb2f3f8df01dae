"""From measured costs to what a rate of events needs: partitions, slots, brokers, shards, money.

python -m bench.sizing                 # the table of deploy/SIZING.md
python -m bench.sizing 250000 --pages 20000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

MIB, GIB = 1024**2, 1024**3
_HOURS, _MONTH_SECONDS = 730, 30 * 86_400
RATES = (10_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Measured:
    """What was measured on 2 cores; the commands are in deploy/SIZING.md."""

    job_events: float = 126_887.0
    """Events/s of a job with exact uniques on `job_slots` slots, steady."""
    job_slots: int = 2
    loader_rows: float = 323_078.0
    """Rows/s from a view topic into ClickHouse, by one loader."""
    log_bytes: float = 101.0
    """An event in Kafka's log, lz4, key and headers included."""
    state_bytes: float = 16.3
    """Of an event in a pane, where users rarely come back to a page: a fingerprint of the user."""
    state_seconds: float = 600.0
    table_bytes: float = 20.4
    """A row of page_views_per_minute in ClickHouse, compressed."""


@dataclass(frozen=True)
class Assumed:
    """What is chosen and not measured; prices are an example, in dollars."""

    load: float = 0.5
    """Share of a slot's rate that is planned with, so that a backlog can be caught up."""
    copies: int = 3
    partition_bytes: float = 5e6
    least_partitions: int = 4
    broker_bytes: float = 100e6
    """Written a second by one broker, the copies of others' partitions included."""
    broker_cores: int = 4
    broker_gib: int = 16
    rewrites: float = 2.0
    """How often a byte of state goes to the object store: once as new, once as compacted."""
    kept_states: float = 3.0
    """Size of all checkpoints and savepoints that are kept, in states."""
    core_hour: float = 0.04
    gib_hour: float = 0.005
    disk_gib_month: float = 0.08
    store_gib_month: float = 0.023


@dataclass(frozen=True)
class Need:
    """What one rate of events needs; bytes are whole, money is dollars a month."""

    rate: int
    slots: int
    partitions: int
    task_managers: int
    task_manager_gib: int
    state_gib: float
    checkpoint_mib: float
    """Sent to the object store a second."""
    brokers: int
    loaders: int
    shards: int
    log_gib_per_day: float
    dollars: int
    """Cores, memory, a month of Kafka's log on all its copies, and the kept checkpoints."""


def need(
    rate: int, pages: int, measured: Measured | None = None, assumed: Assumed | None = None
) -> Need:
    """Return what `rate` events/s on `pages` pages need; every open window fires each second."""
    seen, plan = measured or Measured(), assumed or Assumed()
    slots = ceil(rate / (seen.job_events / seen.job_slots * plan.load))
    by_bytes = ceil(rate * seen.log_bytes / plan.partition_bytes)
    partitions = _even(max(slots, by_bytes, plan.least_partitions), slots)
    state = rate * seen.state_seconds * seen.state_bytes
    task_managers = ceil(slots / 4)
    # RocksDB's block cache takes a tenth of the state well; 3 GiB is what four slots start with.
    each = 3 + ceil(state / task_managers / 10 / GIB)
    rows = min(rate, pages)
    loaders = max(2, ceil(rows / (seen.loader_rows * plan.load)))
    shards = ceil(rows / (seen.loader_rows * plan.load))
    log = rate * seen.log_bytes * plan.copies
    brokers = max(plan.copies, ceil(log / plan.broker_bytes))
    cores = slots + loaders + shards * plan.copies * 2 + brokers * plan.broker_cores
    memory = task_managers * each + loaders * 2 + shards * plan.copies * 8
    memory += brokers * plan.broker_gib
    dollars = (
        cores * plan.core_hour * _HOURS
        + memory * plan.gib_hour * _HOURS
        + log * _MONTH_SECONDS / GIB * plan.disk_gib_month
        + state * plan.kept_states / GIB * plan.store_gib_month
    )
    return Need(
        rate,
        slots,
        partitions,
        task_managers,
        each,
        round(state / GIB, 1),
        round(rate * seen.state_bytes * plan.rewrites / MIB, 1),
        brokers,
        loaders,
        shards,
        round(log * 86_400 / GIB, 1),
        round(dollars),
    )


def _even(partitions: int, slots: int) -> int:
    """Return so many partitions, or a few more, that each slot reads the same number."""
    return ceil(partitions / slots) * slots


def _whole(gib: float) -> str:
    return f"{ceil(gib):,} GiB" if gib < 1024 else f"{ceil(gib / 1024):,} TiB"


def table(needs: Iterable[Need]) -> str:
    """Return the rows of a Markdown table."""
    lines = [
        "| Events/s | Slots | Partitions | TaskManagers | State | Checkpoints a second | Brokers "
        "| Loaders | ClickHouse shards | Kafka's log a day | Dollars a month |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {n.rate:,} | {n.slots:,} | {n.partitions:,} "
        f"| {n.task_managers:,} × {n.task_manager_gib} GiB | {_whole(n.state_gib)} "
        f"| {ceil(n.checkpoint_mib):,} MiB | {n.brokers:,} | {n.loaders:,} | {n.shards:,} "
        f"| {_whole(n.log_gib_per_day)} | {n.dollars:,} |"
        for n in needs
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rates", type=int, nargs="*", default=RATES, help="events/s")
    parser.add_argument("--pages", type=int, default=100_000, help="keys that change a second")
    arguments = parser.parse_args()
    print(table(need(rate, arguments.pages) for rate in arguments.rates))
