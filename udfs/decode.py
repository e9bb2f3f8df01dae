"""Turn Kafka values into columns and tell good events from bad ones, a batch at a time.

No I/O of its own: the writer's schema of a schema id comes from the function it is given.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from schemas.framing import HEADER_BYTES, MAGIC
from schemas.streams import Length, OneOf, Range, Stream
from udfs.avro_columns import (
    UnresolvableSchema,
    UnresolvableValue,
    column_of,
    reader_type,
)
from udfs.avro_rows import checked, has_more, plain, read_strictly
from udfs.comparisons import compared

Objects = npt.NDArray[np.object_]
Part = tuple[npt.NDArray[np.int64], pa.Table]
"""Rows of a batch and their columns."""
Refuse = Callable[..., None]
"""Takes rows of a batch that are no good events, why, and by which reason if not undecodable."""

SchemaOf = Callable[[int], dict[str, Any] | None]
"""Writer schema by id, parsed JSON; None where the registry knows no such id."""


@dataclass
class Batch:
    """What became of a batch of n Kafka values.

    `reasons` and `details` hold n entries, None for a good event. `schema_ids` holds n ids, -1
    where the value has no frame. `rows` are the positions of the good events, ascending, and
    `events` their columns in the same order.
    """

    reasons: Objects
    details: Objects
    schema_ids: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    events: pa.Table


@dataclass(frozen=True)
class Values:
    """The octets of some Kafka values, one after the other, and where each begins and ends.

    A value that is null has none.
    """

    octets: bytes
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    @staticmethod
    def of(values: Any) -> Values:
        """Return the values in an Arrow column, or in an array of bytes and None."""
        column = values if isinstance(values, pa.Array) else pa.array(values, pa.binary())
        data, edges = column.buffers()[2], _edges(column)
        return Values(data.to_pybytes() if data else b"", edges[:-1], edges[1:])

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """How many octets each has."""
        return self.ends - self.starts

    def bodies(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        """Return what follows the header in those of `rows`."""
        octets, begins = self.octets, self.starts[rows] + HEADER_BYTES
        edges = zip(begins.tolist(), self.ends[rows].tolist(), strict=True)
        return [octets[begin:end] for begin, end in edges]


_LEFT_OVER = "Bytes are left over after the last field."
# An int from here on, or as far below zero, is written in five bytes, as one with more bits is.
_FIVE_BYTES = 1 << 27
# What pyruhvro has a column for; values of others it reads as they are written.
_LOGICAL = ("date", "timestamp-millis", "timestamp-micros")


@dataclass(frozen=True)
class _Writer:
    """A writer's schema as its readers want it.

    `fault` says why nothing can be read that was written with it. `text` is for pyruhvro, JSON, and
    empty where that can't read it; then fastavro does, by `written`, which has no logical types.
    `fields` are the writer's by name, and `unread` the columns that may hold bytes of any kind and
    that nobody looks at.
    """

    fault: str = ""
    text: str = ""
    written: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()


@dataclass
class Decoder:
    """Decodes batches of one stream, keeping only the fields named in `fields`.

    An Avro record is read with its writer's schema by pyruhvro (Rust, straight to Arrow) and
    resolved to the stream's current schema on whole columns. A batch that pyruhvro refuses is
    halved until the bad records stand alone, so that each costs only itself. Where a schema has
    what pyruhvro has not, such as fixed sizes, fastavro reads one record after the other.
    """

    stream: Stream
    schema_of: SchemaOf
    fields: tuple[str, ...]
    _writers: dict[int, _Writer] = field(default_factory=dict)

    def decode(self, values: Any, timestamps: npt.NDArray[np.int64]) -> Batch:
        """Return what became of `values`, written at `timestamps` (epoch ms).

        They are bytes or None in an array, or a column of Arrow's, which is faster.
        """
        reasons = np.full(len(values), None, dtype=object)
        details = np.full(len(values), None, dtype=object)
        found = Values.of(values)
        ids = self._judge_frames(found, reasons, details)
        framed = np.flatnonzero(ids >= 0)
        parts: list[Part] = []
        for schema_id in np.unique(ids[framed]):
            of_schema = np.flatnonzero((ids == schema_id) & (reasons == None))  # noqa: E711
            parts.extend(self._decode_rows(found, of_schema, int(schema_id), reasons, details))
        rows, events = self._in_order(parts)
        good = self._judge_events(events, rows, timestamps, reasons, details)
        return Batch(reasons, details, ids, rows[good], chosen(events, good))

    def _judge_frames(
        self,
        values: Values,
        reasons: Objects,
        details: Objects,
    ) -> npt.NDArray[np.int64]:
        """Mark values that are no frame; return the schema id of each, -1 where there is none."""
        starts, sizes = values.starts, values.sizes
        count = len(sizes)
        ids = np.full(count, -1, dtype=np.int64)
        magic_wrong = np.zeros(count, dtype=bool)
        if count and values.octets:
            octets = np.frombuffer(values.octets, dtype=np.uint8)
            some = np.flatnonzero(sizes > 0)
            magic_wrong[some] = octets[starts[some]] != MAGIC
            framed = np.flatnonzero((sizes >= HEADER_BYTES) & ~magic_wrong)
            first = starts[framed]
            ids[framed] = sum(
                octets[first + i].astype(np.int64) << 8 * (4 - i) for i in range(1, 5)
            )
        limit = self.stream.max_event_bytes
        for mask, reason, detail in (
            (sizes > limit, "oversize", f"The value is larger than {limit} bytes."),
            (
                (sizes > 0) & (sizes < HEADER_BYTES),
                "truncated",
                f"The value is shorter than a frame's header, {HEADER_BYTES} bytes.",
            ),
            (magic_wrong, "bad_magic", f"The first byte is not {MAGIC}."),
            (sizes == 0, "empty", "The value is null or has no bytes."),
        ):
            reasons[mask] = reason
            details[mask] = detail
        return ids

    def _decode_rows(
        self,
        values: Values,
        rows: npt.NDArray[np.int64],
        schema_id: int,
        reasons: Objects,
        details: Objects,
    ) -> list[Part]:
        if not len(rows):
            return []

        def refuse(refused: npt.NDArray[np.int64], error: str, reason: str = "undecodable") -> None:
            reasons[refused] = reason
            details[refused] = f"Schema {schema_id}: {error}" if reason == "undecodable" else error

        writer = self._writer(schema_id)
        if writer is None:
            refuse(rows, f"The registry has no schema with id {schema_id}.", "unknown_schema_id")
            return []
        if writer.fault:
            refuse(rows, writer.fault)
            return []
        if not writer.text:
            return list(self._one_by_one(values.bodies(rows), rows, writer, refuse))
        decoded = _decode_halving(values.bodies(rows), rows, writer.text)
        parts = []
        for part_rows, part_bodies, batch, error in decoded:
            if batch is None:
                refuse(part_rows, error)
                continue
            sizes = values.sizes[part_rows] - HEADER_BYTES
            whole, fitting = _reads_whole(batch, part_bodies, sizes, writer, self.fields)
            refuse(part_rows[~whole], _LEFT_OVER, "trailing_bytes")
            refuse(part_rows[~fitting], "a number is larger than its type has room for.")
            for name, bad in _bad_texts(batch, writer.unread):
                refuse(part_rows[bad], f"{name} is not UTF-8.", "bad_text")
            for rows_, table in self._resolved(batch, part_rows, refuse):
                keep = reasons[rows_] == None  # noqa: E711
                parts.append((rows_[keep], chosen(table, keep)))
        return parts

    def _writer(self, schema_id: int) -> _Writer | None:
        if schema_id not in self._writers:
            schema = self.schema_of(schema_id)
            if schema is None:
                return None
            try:
                self._writers[schema_id] = self._read_schema(schema)
            except UnresolvableSchema as error:
                self._writers[schema_id] = _Writer(fault=str(error))
        return self._writers[schema_id]

    def _read_schema(self, schema: Any) -> _Writer:
        writer = checked(schema)
        fields = {one["name"]: one for one in writer.fields}
        if writer.is_for_one_by_one:
            return _Writer(written=writer.written, fields=fields)
        octets = {name for name, one in fields.items() if writer.has_bytes(one["type"])}
        try:
            text = json.dumps(plain(schema, _LOGICAL, "string"))
        except RecursionError as error:
            raise UnresolvableSchema("the schema is nested too deeply.") from error
        return _Writer("", text, writer.written, fields, frozenset(octets - self._own_names))

    @property
    def _own_fields(self) -> list[dict[str, Any]]:
        """The fields to decode, as the stream's schema has them."""
        by_name = {one["name"]: one for one in self.stream.schema["fields"]}
        return [by_name[name] for name in self.fields]

    @property
    def _own_names(self) -> set[str]:
        """What writers may call the fields to decode."""
        return {n for one in self._own_fields for n in (one["name"], *one.get("aliases", ()))}

    def _resolved(
        self, batch: pa.RecordBatch, rows: npt.NDArray[np.int64], refuse: Refuse
    ) -> Iterable[Part]:
        """Yield the columns as the stream has them, without values it has no place for."""
        try:
            columns = [column_of(batch, one) for one in self._own_fields]
        except UnresolvableSchema as error:
            refuse(rows, str(error))
        except UnresolvableValue as error:
            bad = np.ones(1, dtype=bool) if len(rows) == 1 else error.bad
            if bad is not None:
                refuse(rows[bad], str(error))
                yield from self._resolved(batch.filter(pa.array(~bad)), rows[~bad], refuse)
                return
            half = len(rows) // 2
            yield from self._resolved(batch.slice(0, half), rows[:half], refuse)
            yield from self._resolved(batch.slice(half), rows[half:], refuse)
        else:
            yield rows, pa.table(columns, names=list(self.fields))

    def _one_by_one(
        self,
        bodies: list[bytes],
        rows: npt.NDArray[np.int64],
        writer: _Writer,
        refuse: Refuse,
    ) -> Iterable[Part]:
        """Yield the columns of records that fastavro reads, one after the other."""
        places, events = [], []
        for place, body in enumerate(bodies):
            event = read_strictly(body, writer.written)
            if event is not None and fastavro.validate(event, writer.written, "", False):
                places.append(place)
                events.append(event)
            elif has_more(body, writer.written):
                refuse(rows[place : place + 1], _LEFT_OVER, "trailing_bytes")
            else:
                refuse(rows[place : place + 1], "the value is not as it would be written.")
        wanted = self._own_names
        try:
            columns = {
                name: pa.array([event[name] for event in events], reader_type(one))
                for name, one in writer.fields.items()
                if name in wanted
            }
        except (UnresolvableSchema, pa.ArrowException, OverflowError, TypeError) as error:
            refuse(rows[places], str(error))
            return
        batch = pa.RecordBatch.from_pydict(columns)
        yield from self._resolved(batch, rows[places], refuse)

    def _in_order(self, parts: list[Part]) -> Part:
        if not parts:
            kinds = [reader_type(one) for one in self._own_fields]
            empty = [pa.array([], type=kind) for kind in kinds]
            return np.zeros(0, dtype=np.int64), pa.table(empty, names=list(self.fields))
        if len(parts) == 1:
            return parts[0]
        rows = np.concatenate([rows for rows, _ in parts])
        order = np.argsort(rows, kind="stable")
        events = pa.concat_tables([table for _, table in parts]).take(pa.array(order))
        return rows[order], events

    def _judge_events(
        self,
        events: pa.Table,
        rows: npt.NDArray[np.int64],
        timestamps: npt.NDArray[np.int64],
        reasons: Objects,
        details: Objects,
    ) -> npt.NDArray[np.bool_]:
        good = np.ones(len(rows), dtype=bool)
        for bad, reason, detail in self._faults(events, timestamps[rows]):
            news = good & bad
            if news.any():
                reasons[rows[news]] = reason
                details[rows[news]] = detail
                good &= ~bad
        return good

    def _faults(
        self, events: pa.Table, timestamps: npt.NDArray[np.int64]
    ) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
        """Return (mask of bad rows, reason, detail) per rule; the first that applies wins."""
        faults = []
        for one in self._own_fields:
            name, is_required = one["name"], one["name"] in self.stream.required
            never_null = is_required or not isinstance(one["type"], list)
            if never_null and (events[name].null_count or pa.types.is_list(events[name].type)):
                faults.append((_lacking(events[name]), "missing", f"{name} is missing."))
        time_field = self.stream.event_time_field
        event_times = events[time_field].cast(pa.int64())
        differs = pc.fill_null(pc.not_equal(event_times, pa.array(timestamps)), True)
        detail = f"{time_field} is not the record's timestamp."
        faults.append((_mask(differs), "wrong_time", detail))
        for rule in self.stream.rules:
            if isinstance(rule, Range):
                faults.append((_outside(events[rule.field], rule), "out_of_range", _bounds(rule)))
            elif isinstance(rule, OneOf):
                detail = f"{rule.field} must be one of {', '.join(rule.values)}."
                faults.append((_unlisted(events[rule.field], rule), "unknown_value", detail))
            else:
                faults.append((_wrong_length(events[rule.field], rule), "bad_length", _size(rule)))
        return faults


def needed_fields(stream: Stream, used: set[str]) -> tuple[str, ...]:
    """Return the fields to decode: those in use and those the stream's rules look at."""
    wanted = used | set(stream.required) | {rule.field for rule in stream.rules}
    wanted.add(stream.event_time_field)
    return tuple(f["name"] for f in stream.schema["fields"] if f["name"] in wanted)


def chosen(table: pa.Table, keep: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the rows of `table` that `keep`, as long as it, marks; most often that is all."""
    return table if keep.all() else table.filter(pa.array(keep))


def _edges(column: pa.BinaryArray) -> npt.NDArray[np.int64]:
    """Return where each value of a column begins, and where the last one ends."""
    edges = np.frombuffer(column.buffers()[1], np.int32)
    found: npt.NDArray[np.int64] = edges[column.offset :][: len(column) + 1].astype(np.int64)
    return found


def _decode_halving(
    bodies: list[bytes], rows: npt.NDArray[np.int64], schema: str
) -> list[tuple[npt.NDArray[np.int64], list[bytes], pa.RecordBatch | None, str]]:
    try:
        return [(rows, bodies, pyruhvro.deserialize_array(bodies, schema), "")]
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    # A panic in the Rust reader arrives as a BaseException, and condemns only its own record.
    except BaseException as error:
        if len(bodies) == 1:
            return [(rows, bodies, None, str(error))]
    half = len(bodies) // 2
    return [
        *_decode_halving(bodies[:half], rows[:half], schema),
        *_decode_halving(bodies[half:], rows[half:], schema),
    ]


def _reads_whole(
    batch: pa.RecordBatch,
    bodies: list[bytes],
    sizes: npt.NDArray[np.int64],
    writer: _Writer,
    fields: Sequence[str],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell which bodies, whose sizes are in bytes, were read to their last byte, and as they are.

    pyruhvro ignores what follows a record, and cuts numbers to their type's bits. A record written
    again has its canonical length; only where that differs from what came, or an int of `fields`
    takes all bytes that it can, is it read once more by fastavro, which tells where it stopped: a
    body may be valid and not canonical.
    """
    expected = np.diff(_edges(pyruhvro.serialize_record_batch(batch, writer.text, 1)[0]))
    whole: npt.NDArray[np.bool_] = expected == sizes
    doubtful = ~whole
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in fields and column.type == pa.int32():
            numbers = pc.fill_null(column, 0).to_numpy().astype(np.int64)
            doubtful |= np.abs(numbers) >= _FIVE_BYTES
    fitting = np.ones(len(whole), dtype=bool)
    for i in np.flatnonzero(doubtful):
        stream = io.BytesIO(bodies[i])
        try:
            event: Any = fastavro.schemaless_reader(stream, writer.written, None)
            whole[i] = stream.tell() == len(bodies[i])
            fitting[i] = not whole[i] or fastavro.validate(event, writer.written, "", False)
        except Exception:
            whole[i] = False
    return whole, fitting


def _bad_texts(
    batch: pa.RecordBatch, unread: frozenset[str]
) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """Return (column, rows whose text is not UTF-8) per column with such; pyruhvro lets them by."""
    names = [name for name in batch.schema.names if name not in unread]
    columns = ((name, batch.column(name)) for name in names)
    found = ((name, np.array(_invalid_rows(column, 0), dtype=np.int64)) for name, column in columns)
    return [(name, rows) for name, rows in found if len(rows)]


def _invalid_rows(column: pa.Array, first: int) -> list[int]:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if len(column) == 1:
            return [first]
        half = len(column) // 2
        return [
            *_invalid_rows(column[:half], first),
            *_invalid_rows(column[half:], first + half),
        ]
    return []


def _mask(values: Any) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask if isinstance(mask, np.ndarray) else np.asarray(mask)


def _lacking(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Tell which values are null, or lists that have a null in them."""
    lacking = _mask(pc.is_null(column))
    if pa.types.is_list(column.type):
        items = column.combine_chunks()
        if items.flatten().null_count:
            lacking[pc.list_parent_indices(items).filter(pc.is_null(items.flatten()))] = True
    return lacking


def _outside(column: pa.ChunkedArray, rule: Range) -> npt.NDArray[np.bool_]:
    bad = np.zeros(len(column), dtype=bool)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        bad |= ~_mask(pc.fill_null(pc.is_finite(column), True))
    if rule.minimum is not None:
        bad |= _mask(compared(column, "<", rule.minimum))
    if rule.maximum is not None:
        bad |= _mask(compared(column, ">", rule.maximum))
    return bad


def _wrong_length(column: pa.ChunkedArray, rule: Length) -> npt.NDArray[np.bool_]:
    sizes = pc.binary_length(column)
    return _mask(pc.less(sizes, rule.minimum)) | _mask(pc.greater(sizes, rule.maximum))


def _unlisted(column: pa.ChunkedArray, rule: OneOf) -> npt.NDArray[np.bool_]:
    known = pc.is_in(column, value_set=pa.array(rule.values, column.type))
    return _mask(pc.and_(pc.is_valid(column), pc.invert(known)))


def _bounds(rule: Range) -> str:
    low = "" if rule.minimum is None else f"{rule.minimum:g} ≤ "
    high = "" if rule.maximum is None else f" ≤ {rule.maximum:g}"
    return f"{rule.field} must be {low}{rule.field}{high}."


def _size(rule: Length) -> str:
    return f"{rule.field} must have {rule.minimum} to {rule.maximum} bytes."
