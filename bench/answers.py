"""What a benchmark's rows must be, by pandas, and what they are, from a view's topic."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import fastavro
from confluent_kafka import Consumer, TopicPartition

from bench.expected import frame, windows
from bench.peers.protocol import Cell, Table, text
from bench.workload import Workload, batches
from deploy.settings import Settings
from jobs.views import View, WindowView
from schemas.topics import begin_offsets, end_offsets

Rows = dict[tuple[int, str], dict[str, Any]]
"""Measures by (window's start in epoch milliseconds, page)."""
_MILLISECOND = timedelta(milliseconds=1)
_FIELDS = ("event_time", "page_id", "user_id", "duration_ms", "status")


def expected_rows(view: WindowView, workload: Workload) -> Rows:
    """Return the rows of `view` over `workload`, by a group-by in pandas."""
    size, slide = view.window.size // _MILLISECOND, view.window.slide // _MILLISECOND
    events = frame(batches(workload), _FIELDS)
    found = windows(events, size, slide, ["page_id"], tuple(view.measures))
    rows = found.set_index(["window_start", "page_id"])
    rows = rows.astype(object).where(rows.notna(), None)
    return dict(zip(rows.index, rows.to_dict("records"), strict=True))


def newest_rows(settings: Settings, view: WindowView) -> Rows:
    """Return the newest revision of each row in the topic of `view`."""
    schema = fastavro.parse_schema(view.avro_schema)
    found: Rows = {}
    for value in committed_values(settings, view.topic(1)):
        row: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        start = round(row["window_start"].timestamp() * 1000)
        found[(start, row["page_id"])] = {name: row[name] for name in view.measures}
    return found


@dataclass
class Follower:
    """The newest rows of a view's topic, as text by their key; `read` goes on where it ended."""

    settings: Settings
    view: View
    table: Table
    rows: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)

    def read(self) -> None:
        """Take in what was committed since."""
        topic, table = self.view.topic(1), self.table
        schema = fastavro.parse_schema(self.view.avro_schema)
        ends = end_offsets(self.settings.kafka_client, topic, read_committed=True)
        for value in committed_values(self.settings, topic, self._places):
            row: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
            key, cells = (
                tuple(text(_plain(row[name])) for name in names)
                for names in (table.keys, table.cells)
            )
            self.rows[key] = cells
        self._places |= ends


def _plain(cell: Any) -> Cell:
    plain: Cell = round(cell.timestamp() * 1000) if isinstance(cell, datetime) else cell
    return plain


def committed_values(
    settings: Settings, topic: str, places: dict[int, int] | None = None
) -> Iterator[bytes]:
    """Yield what a topic holds now, from `places` on, partition by partition in order.

    Tombstones are left out.
    """
    ends = end_offsets(settings.kafka_client, topic, read_committed=True)
    begins = begin_offsets(settings.kafka_client, topic) | (places or {})
    left = {p for p, end in ends.items() if end > begins[p]}
    consumer = Consumer(
        {
            **settings.kafka_client,
            "group.id": "bench",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, p, begins[p]) for p in left])
    while left:
        for message in consumer.consume(10_000, timeout=1):
            if message.error() is not None:
                left.discard(message.partition())
            elif (value := message.value()) is not None:
                yield value
    consumer.close()
