"""Turn records of a view topic into the rows of its table, newest revisions only. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any, NoReturn, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.framing import HEADER_BYTES, BadFrame, split
from sinks.tables import EMITTED_AT, PARTITION, REVISION


class BadRecord(ValueError):
    """A record that can't become a row, named by topic, partition and offset."""


class Record(Protocol):
    """What is read of a Kafka record; confluent_kafka's Message is one."""

    def topic(self) -> str | None: ...  # noqa: D102
    def partition(self) -> int | None: ...  # noqa: D102
    def offset(self) -> int | None: ...  # noqa: D102
    def timestamp(self) -> tuple[int, int]: ...  # noqa: D102
    def key(self) -> str | bytes | None: ...  # noqa: D102
    def value(self) -> str | bytes | None: ...  # noqa: D102
    def headers(self) -> Any: ...  # noqa: D102


# Every record of every topic passes here; a comprehension takes about twice the time.
_partition = methodcaller("partition")
_offset = methodcaller("offset")


def last_offsets(records: Sequence[Record]) -> dict[int, int]:
    """Return for each partition the last offset in `records`."""
    return dict(zip(map(_partition, records), map(_offset, records), strict=True))


def by_schema(records: Sequence[Record]) -> dict[int, Sequence[Record]]:
    """Return `records` apart by the schema id in their frames, each part in the order given.

    Raises `BadRecord` for one without a frame.
    """
    # A value that is no bytes has no frame either; it is named with the others below.
    headers = [(record.value() or b"")[:HEADER_BYTES] for record in records]
    distinct = dict(zip(reversed(headers), reversed(records), strict=True))
    ids = {header: _schema_id(first) for header, first in distinct.items()}
    if len(ids) == 1:
        return dict.fromkeys(ids.values(), records)
    parts: dict[int, list[Record]] = {schema_id: [] for schema_id in ids.values()}
    for header, record in zip(headers, records, strict=True):
        parts[ids[header]].append(record)
    return dict(parts)


def view_rows(records: Sequence[Record], schema: Mapping[str, Any]) -> pa.Table:
    """Return one row for each of `records`, all written with `schema`, in their order.

    Raises `BadRecord` for the first that does not follow the schema.
    """
    text = json.dumps(schema)
    bodies = [record.value()[HEADER_BYTES:] for record in records]  # type: ignore[index]
    try:
        decoded = pyruhvro.deserialize_array(bodies, text)
    except ValueError:
        _name_bad_record(records, text)
    return with_origin(pa.Table.from_batches([decoded]), records)


def newest_revisions(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return of the rows with the same `key` the one with the greatest revision."""
    order = np.argsort(rows[REVISION].to_numpy(), kind="stable")
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    ranked = rows.select(list(key)).append_column("_rank", pa.array(ranks))
    newest = ranked.group_by(list(key), use_threads=False).aggregate([("_rank", "max")])
    if newest.num_rows == rows.num_rows:
        return rows
    return rows.take(pa.array(np.sort(order[newest["_rank_max"].to_numpy()])))


def with_origin(rows: pa.Table, records: Sequence[Record]) -> pa.Table:
    """Return `rows` with the columns that say where and when their records were written."""
    count = len(records)
    offsets = np.fromiter(map(_offset, records), np.uint64, count)
    partitions = np.fromiter(map(_partition, records), np.uint32, count)
    written = np.fromiter((record.timestamp()[1] for record in records), np.int64, count)
    return (
        rows.append_column(REVISION, pa.array(offsets))
        .append_column(PARTITION, pa.array(partitions))
        .append_column(EMITTED_AT, pa.array(written).cast(pa.timestamp("ms")))
    )


def newest_emission_ms(rows: pa.Table) -> int:
    """Return when the newest of `rows` was emitted, epoch milliseconds."""
    return int(pc.max(rows[EMITTED_AT].cast(pa.int64())).as_py())


def place_of(record: Record) -> str:
    """Return where `record` stands, for messages."""
    return f"topic {record.topic()}, partition {record.partition()}, offset {record.offset()}"


def _schema_id(record: Record) -> int:
    try:
        schema_id, _ = split(record.value())  # type: ignore[arg-type]
    except BadFrame as error:
        raise BadRecord(
            f"{place_of(record)}: {error} It was not written by a view's job."
        ) from error
    return schema_id


def _name_bad_record(records: Sequence[Record], schema: str) -> NoReturn:
    for record in records:
        try:
            pyruhvro.deserialize_array([record.value()[HEADER_BYTES:]], schema)  # type: ignore[index]
        except ValueError as error:
            raise BadRecord(
                f"{place_of(record)}: the body does not follow its schema ({error}). It was not "
                "written by a view's job."
            ) from error
    raise BadRecord(f"{place_of(records[0])}: this record or one of the next is no Avro.")
