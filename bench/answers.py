"""What a benchmark's rows must be, by pandas, and what they are, from a view's topic."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import fastavro
import numpy as np
import pandas as pd
from confluent_kafka import Consumer, TopicPartition

from bench.workload import Workload, batches
from deploy.settings import Settings
from jobs.views import WindowView
from schemas.topics import begin_offsets, end_offsets
from udfs.measures import Count, CountDistinct, Mean, Sum

Rows = dict[tuple[int, str], dict[str, Any]]
"""Measures by (window's start in epoch milliseconds, page)."""


def expected_rows(view: WindowView, workload: Workload) -> Rows:
    """Return the rows of `view` over `workload`, by a group-by in pandas."""
    columns = ["event_time", "page_id", "user_id", "duration_ms", "status"]
    frames = [batch.select(columns).to_pandas() for batch in batches(workload)]
    events = pd.concat(frames, ignore_index=True)
    slide = view.window.slide // timedelta(milliseconds=1)
    times = events["event_time"].to_numpy().astype(np.int64)
    events["window"] = times - times % slide
    events["error"] = events["status"] >= 500
    # An event is in as many windows as start between it and a window's size before it.
    starts = range(view.window.size // view.window.slide)
    events = pd.concat(events.assign(window=events["window"] - n * slide) for n in starts)
    grouped = events.groupby(["window", "page_id"], sort=False)
    result = pd.DataFrame({"n": grouped.size()})
    for name, how in view.measures.items():
        match how:
            case Count(field=None):
                result[name] = result["n"]
            case Count():
                result[name] = grouped["error"].sum()
            case CountDistinct():
                result[name] = grouped["user_id"].nunique()
            case Sum():
                result[name] = grouped["duration_ms"].sum(min_count=1)
            case Mean():
                result[name] = grouped["duration_ms"].mean()
    result = result.drop(columns="n").astype(object).where(result.notna(), None)
    return dict(zip(result.index, result.to_dict("records"), strict=True))


def newest_rows(settings: Settings, view: WindowView) -> Rows:
    """Return the newest revision of each row in the topic of `view`."""
    schema = fastavro.parse_schema(view.avro_schema)
    found: Rows = {}
    for value in committed_values(settings, view.topic(1)):
        row: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
        start = round(row["window_start"].timestamp() * 1000)
        found[(start, row["page_id"])] = {name: row[name] for name in view.measures}
    return found


def committed_values(settings: Settings, topic: str) -> Iterator[bytes]:
    """Yield what a topic holds now, partition by partition in order; tombstones left out."""
    ends = end_offsets(settings.kafka_client, topic, read_committed=True)
    begins = begin_offsets(settings.kafka_client, topic)
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
