"""Measure what an event costs in bytes: on the wire, and in a job's state. Needs no stack.

python -m bench.cost
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from bench.workload import Workload, batches
from jobs.catalogue import job_named
from jobs.plan import plan
from schemas.batches import BatchEncoder
from schemas.framing import header
from schemas.streams import PAGE_VIEWS
from udfs.envelope import table_bytes
from udfs.panes import PANE


@dataclass(frozen=True)
class Cost:
    """Bytes of one event of the workload; state is that of the job's largest pane store."""

    events: int
    frame_bytes: float
    state_bytes_per_event: float
    state_seconds: float
    """How long a pane stays: its windows and the allowed lateness."""


def measure(workload: Workload) -> Cost:
    """Encode the events of `workload` and fold each minute into panes."""
    encoder = BatchEncoder(PAGE_VIEWS, PAGE_VIEWS.schema, header(1))
    stores = plan(job_named("page_views"), 1).inputs[0].stores
    store = next(s for s in stores if s.dimensions == ("page_id",))
    frames, tables = 0, []
    for batch in batches(workload):
        records = encoder.encode(batch)
        frames += sum(map(len, records.values))
        times = batch.column("event_time").cast(pa.int64()).to_numpy()
        tables.append(store.from_events(pa.Table.from_batches([batch]), times))
    panes = store.merge(tables)
    sizes = [
        len(table_bytes(panes.filter(pa.compute.equal(panes[PANE], pane))))
        for pane in panes[PANE].unique()
    ]
    return Cost(
        workload.events,
        round(frames / workload.events, 1),
        round(sum(sizes) / workload.events, 1),
        (store.expiry(0) + 1) / 1000,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Workload(events=600_000, per_second=5_000.0)))))
