"""Sizes on paper: exact for round costs, and the document is what the arithmetic gives."""

from __future__ import annotations

from bench.sizing import RATES, Assumed, Measured, Need, need, table
from deploy.settings import PROJECT_ROOT


def test_round_costs_give_round_needs() -> None:
    gib = 1024**3
    seen = Measured(
        job_events=2_000.0,
        job_slots=2,
        loader_rows=100.0,
        log_bytes=gib / 86_400,
        state_bytes=gib / 1_000,
        state_seconds=1.0,
    )
    chosen = Assumed(
        load=0.5,
        copies=1,
        partition_bytes=1e12,
        broker_bytes=gib / 86_400 * 1_000,
        broker_cores=3,
        kept_states=2.0,
        core_hour=1.0,
        gib_hour=0.0,
        disk_gib_month=0.0,
        store_gib_month=5.0,
    )
    # 500 events/s a slot: 8 slots; 4 GiB of state on 2 TaskManagers; 50 rows/s a loader;
    # 1,000 events/s a broker.
    assert need(4_000, pages=100, measured=seen, assumed=chosen) == Need(
        rate=4_000,
        slots=8,
        partitions=8,
        task_managers=2,
        task_manager_gib=4,
        state_gib=4.0,
        checkpoint_mib=8 * 1024,
        brokers=4,
        loaders=2,
        shards=2,
        log_gib_per_day=4_000.0,
        dollars=(8 + 2 + 2 * 2 + 4 * 3) * 730 + 4 * 2 * 5,
    )


def test_every_slot_reads_as_many_partitions() -> None:
    chosen = Assumed(partition_bytes=30_000)
    assert need(100_000, pages=1, assumed=chosen).slots == 4
    assert need(100_000, pages=1, assumed=chosen).partitions == 340


def test_sizes_are_whole_and_in_the_unit_that_fits() -> None:
    row = table([need(10_000_000, pages=100_000)]).splitlines()[-1]
    assert "| 92 GiB | 311 MiB | 31 | 2 | 1 | 239 TiB |" in row


def test_the_document_has_the_table() -> None:
    text = (PROJECT_ROOT / "deploy" / "SIZING.md").read_text()
    assert table(need(rate, pages=100_000) for rate in RATES) in text
