"""The decode function as Flink runs it: its I/O around the pure modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyflink.table.udf import ScalarFunction

from deploy.settings import Settings
from schemas.streams import Stream
from udfs import lateness
from udfs.arrow_frames import arrow_column, arrow_frame, take_arrow_frames
from udfs.dead_letter_limit import DeadLetterGuard
from udfs.decode import Batch, Decoder, chosen, needed_fields
from udfs.envelope import Parcel, pack, to_bytes, unpack
from udfs.fingerprints import with_fingerprints
from udfs.joins import JoinInput
from udfs.kafka_letters import DeadBefore, EventsIn
from udfs.kafka_time import NewestBefore
from udfs.panes import PaneStore, split
from udfs.stores import FoldedStore
from udfs.totals import TotalsStore
from udfs.writer_schemas import WriterSchemas

LETTER = (
    "reason",
    "detail",
    "schema_id",
    "window_start",
    "window_end",
    "partition",
    "offset",
    "timestamp",
    "key",
    "value",
)
"""Parts of a letter. A dead one has a reason; that of an event too late has its window."""


@dataclass(frozen=True)
class DecodeSpec:
    """What the decode function needs to know; pickled into the job.

    `topic` is the one that is read, `known` as in `NewestBefore`. Dead letters go to topic
    `dead_letters`; those before `accepted`, offsets by partition, are no reason to stop. `columns`
    are the event fields handed on row by row where the stream `is_queried`, and `hold` is how far
    Flink's watermark trails the stream's, in ms. `joins` are those that the stream is a side of;
    their parcels go elsewhere than those of `stores`.
    """

    stream: Stream
    stores: tuple[FoldedStore, ...]
    fields: tuple[str, ...]
    bucket_keys: tuple[tuple[int, ...], ...]
    registry_url: str
    bootstrap: str
    topic: str
    dead_letters: str
    accepted: tuple[tuple[int, int], ...] = ()
    known: tuple[tuple[int, tuple[int, int]], ...] = ()
    columns: tuple[str, ...] = ()
    hold: int = 0
    is_queried: bool = False
    joins: tuple[JoinInput, ...] = ()
    join_keys: tuple[tuple[int, ...], ...] = ()


def event_column(name: str) -> str:
    """Return what an event's field is called beside the verdict's own."""
    return f"event_{name}"


class DecodeEvents(ScalarFunction):
    """Kafka values in; per row a verdict, and in a batch's first row the packet of its panes."""

    def __init__(self, spec: DecodeSpec) -> None:
        self.spec = spec

    def is_deterministic(self) -> bool:
        """Return False, though it is, lest the planner call it again for each field it reads."""
        return False

    def open(self, function_context: Any) -> None:
        """Connect to the registry, and to Kafka for the time before a restart."""
        take_arrow_frames()
        spec = self.spec
        fields = needed_fields(spec.stream, set(spec.fields))
        self._fingerprinted = {name for store in spec.stores for name in _distinct_fields(store)}
        self._decoder = Decoder(spec.stream, WriterSchemas(spec.registry_url), fields)
        # Secrets are this process's own; the job carries none.
        kafka = {**Settings().kafka_client, "bootstrap.servers": spec.bootstrap}
        self._clock = lateness.PartitionClock(NewestBefore(kafka, spec.topic, dict(spec.known)))
        limit = spec.stream.dead_letter_limit
        dead_before = DeadBefore(kafka, spec.dead_letters, limit.remembered)
        events_in = EventsIn(kafka, spec.topic)
        self._guard = DeadLetterGuard(
            spec.topic, limit, dead_before, events_in, dict(spec.accepted)
        )

    def eval(
        self,
        keys: Any,
        values: Any,
        partitions: Any,
        offsets: Any,
        timestamps: Any,
        watermarks: Any,
    ) -> pd.DataFrame:
        """Judge one batch; the series have one entry per Kafka record, in partition order."""
        times = _epoch_ms(timestamps)
        where = partitions.to_numpy(dtype=np.int64), offsets.to_numpy(dtype=np.int64)
        records = arrow_column(values)
        batch = self._decoder.decode(records, times)
        self._guard.judge(*where, batch.reasons)
        newest = self._clock.newest(*where, times)
        flink = _epoch_ms(watermarks)
        flink = np.where(flink == lateness.UNKNOWN, flink, flink + self.spec.hold)
        late = lateness.late(self.spec.stream, times, newest, flink)
        in_time = ~late[batch.rows]
        rows = batch.rows[in_time]
        events = chosen(batch.events, in_time)
        here = np.zeros(len(times), dtype=bool)
        here[rows] = True
        given = events, times[rows], where[0][rows], where[1][rows]
        packets = self._packets(*given, len(times))
        letters = self._letters(np.flatnonzero(~here), batch, *where, times, keys, records)
        told = {"is_told": self._told(here, packets), "letter": letters}
        if self.spec.is_queried:
            told |= {
                "in_time": pa.array(here),
                "source_partition": pa.array(where[0].astype(np.int32)),
                "source_offset": pa.array(where[1]),
                "time_ms": pa.array(times),
            } | self._columns(events, rows, len(times))
        return arrow_frame(told | packets)

    def _told(self, here: npt.NDArray[np.bool_], packets: Mapping[str, pa.Array]) -> pa.Array:
        """Return which rows say anything: Flink passes over the others."""
        told = np.ones(len(here), dtype=bool) if self.spec.is_queried else ~here
        told[0] |= any(column[0].is_valid for column in packets.values())
        return pa.array(told)

    def _letters(
        self,
        bad: npt.NDArray[np.int64],
        batch: Batch,
        partitions: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        times: npt.NDArray[np.int64],
        keys: Any,
        values: pa.Array,
    ) -> pa.ListArray:
        """Return the letters of the rows `bad`, each a list of `LETTER`; null for the others."""
        if not len(bad):
            return pa.nulls(len(times), pa.list_(pa.binary()))
        reasons, ids, at = batch.reasons[bad], batch.schema_ids[bad], times[bad]
        is_late = reasons == None  # noqa: E711
        pane = lateness.milliseconds(self.spec.stream)[2]
        start = at - at % pane
        columns = (
            pa.array(reasons, pa.string()),
            pa.array(batch.details[bad], pa.string()),
            _texts(ids, ids >= 0, ""),
            _texts(start, is_late),
            _texts(start + pane, is_late),
            _texts(partitions[bad]),
            _texts(offsets[bad]),
            _texts(at),
            *(column.take(pa.array(bad)) for column in (arrow_column(keys), values)),
        )
        return _lists(columns, bad, len(times))

    def _columns(
        self, events: pa.Table, rows: npt.NDArray[np.int64], count: int
    ) -> dict[str, pa.Array]:
        """Return the event columns that queries read, null where there is no good event."""
        places = np.full(count, -1, dtype=np.int64)
        places[rows] = np.arange(len(rows))
        taken = pa.array(places, mask=places < 0)
        return {
            event_column(name): events[name].combine_chunks().take(taken)
            for name in self.spec.columns
        }

    def _packets(
        self,
        events: pa.Table,
        times: npt.NDArray[np.int64],
        partitions: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        count: int,
    ) -> dict[str, pa.Array]:
        """Return the packets for panes and for joins, each in the first of `count` rows."""
        events = events.append_column("source_partition", pa.array(partitions).cast(pa.string()))
        events = events.append_column("source_offset", pa.array(offsets))
        spec = self.spec
        events = with_fingerprints(events, self._fingerprinted)
        packets = {"packet": _packet(spec.stores, spec.bucket_keys, events, times)}
        if spec.joins:
            packets["join_packet"] = _packet(spec.joins, spec.join_keys, events, times)
        rest = pa.nulls(count - 1, pa.binary())
        return {
            name: pa.concat_arrays([pa.array([packet], pa.binary()), rest])
            for name, packet in packets.items()
        }


def _packet(
    stores: Sequence[FoldedStore | JoinInput],
    bucket_keys: Sequence[tuple[int, ...]],
    events: pa.Table,
    times: npt.NDArray[np.int64],
) -> bytes | None:
    """Return the packet of what `stores` make of `events`; None where they make nothing."""
    parcels = []
    for store, keys in zip(stores, bucket_keys, strict=True):
        folded = store.from_events(events, times)
        for bucket, batch in split(store, folded, len(keys)):
            parcels.append(Parcel(keys[bucket], store.first_due(batch), to_bytes(batch)))
    return pack(parcels) or None


def _texts(
    numbers: npt.NDArray[np.int64], there: Any = True, otherwise: str | None = None
) -> pa.StringArray:
    """Return `numbers` as text where they are `there`."""
    texts, mask = pa.array(numbers).cast(pa.string()), np.broadcast_to(there, len(numbers))
    return pc.if_else(pa.array(mask), texts, pa.scalar(otherwise, pa.string()))


def _lists(columns: Sequence[pa.Array], rows: npt.NDArray[np.int64], count: int) -> pa.ListArray:
    """Return `count` lists: of what `columns` hold, as bytes, for `rows`, null for the others.

    Flink copies a row column by column before it passes over it: of these it copies one null.
    """
    by_column = pa.concat_arrays([column.cast(pa.binary()) for column in columns])
    by_row = np.arange(len(by_column)).reshape(len(columns), -1).T.ravel()
    sizes = np.zeros(count, dtype=np.int32)
    sizes[rows] = len(columns)
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int32)])
    # An edge that is null makes its list null.
    nullable = pa.array(edges, mask=np.append(sizes == 0, False))
    return pa.ListArray.from_arrays(nullable, by_column.take(pa.array(by_row)))


def _distinct_fields(store: FoldedStore) -> tuple[str, ...]:
    match store:
        case PaneStore():
            return (*store.distinct, *store.sketched)
        case TotalsStore():
            return store.distinct
    return ()


def _epoch_ms(series: Any) -> npt.NDArray[np.int64]:
    moments = series.to_numpy(dtype="datetime64[ms]")
    # NaT, a watermark that is not there yet, is the least integer: lateness.UNKNOWN.
    result: npt.NDArray[np.int64] = moments.astype(np.int64)
    return result


def unpack_packet(row: Any) -> Iterable[tuple[int, int, bytes]]:
    """Yield (key, first due, body) for each parcel of a decoded row's packet."""
    for parcel in unpack(bytes(row[0])):
        yield parcel.key, parcel.first_due, parcel.body
