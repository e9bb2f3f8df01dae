"""What the generator promises: the same events for the same seed, disorder within its bound."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from bench.workload import Workload, batches
from schemas.batches import BatchEncoder
from schemas.framing import header, split
from schemas.streams import PAGE_VIEWS
from schemas.values import conform
from tests.schemas.avro import decoded

SMALL = Workload(events=20_000, pages=50, users=100_000, per_second=100.0, seed=3)


def table(workload: Workload) -> pa.Table:
    return pa.Table.from_batches(batches(workload, 5_000))


def test_equal_workloads_give_equal_events_and_seeds_differ() -> None:
    assert table(SMALL).equals(table(SMALL))
    assert not table(SMALL).equals(table(replace(SMALL, seed=4)))


def test_no_event_trails_an_earlier_one_by_more_than_the_disorder() -> None:
    times = table(SMALL)["event_time"].to_numpy()
    behind = pc.subtract(pc.cumulative_max(pa.array(times)), pa.array(times))
    furthest = pc.max(behind).as_py()
    assert 1_000 < furthest <= SMALL.disorder // timedelta(milliseconds=1)
    assert SMALL.disorder < PAGE_VIEWS.disorder


def test_nearly_all_triples_of_window_page_and_user_are_unique() -> None:
    events = table(SMALL)
    window = pc.divide(events["event_time"], 60_000)
    triples = pa.table([window, events["page_id"], events["user_id"]], names=["w", "p", "u"])
    assert triples.group_by(["w", "p", "u"]).aggregate([]).num_rows > 0.97 * SMALL.events


def test_pages_follow_the_skew() -> None:
    counts = sorted(count["counts"] for count in table(SMALL)["page_id"].value_counts().to_pylist())
    assert len(counts) == SMALL.pages
    assert counts[-1] > 15 * counts[0]
    even = table(replace(SMALL, skew=0.0))["page_id"].value_counts().to_pylist()
    assert max(c["counts"] for c in even) < 2 * min(c["counts"] for c in even)


def test_event_ids_are_unique_and_events_conform_to_the_schema() -> None:
    events = table(SMALL)
    assert pc.count_distinct(events["event_id"]).as_py() == SMALL.events
    for event in events.slice(0, 1_000).to_pylist():
        assert conform(event, PAGE_VIEWS.schema) == event


def test_batch_encoding_is_that_of_single_events() -> None:
    (batch, *_) = batches(replace(SMALL, events=500))
    records = BatchEncoder(PAGE_VIEWS, PAGE_VIEWS.schema, header(9)).encode(batch)
    events = batch.to_pylist()
    assert [split(value)[0] for value in records.values] == [9] * 500
    assert [decoded(value) for value in records.values] == events
    assert records.keys == [event["user_id"].encode() for event in events]
    assert records.timestamps == [event["event_time"] for event in events]
