"""How panes, sessions, counts and events travel, from decode to operator, and in its state.

No I/O. A parcel is a table of them for one bucket of one store, as an Arrow record batch without
its schema, which both ends know. A packet is all parcels of one decoded batch.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

_PARCEL = struct.Struct("<iqI")
_BOOK = struct.Struct("<8sqII")

STATE_FORMAT = 3
"""How books, and what buckets hold, are written; with another number no state can be read."""


class Kept(Protocol):
    """A store of panes, of sessions, of counts or of events."""

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of its tables."""

    @property
    def layout(self) -> str:
        """What state must be written by to be read again."""


@dataclass(frozen=True)
class Parcel:
    """`key` is the Flink key of (store, bucket); `first_due` what of `body` is due first."""

    key: int
    first_due: int
    body: bytes


def pack(parcels: Iterable[Parcel]) -> bytes:
    """Return `parcels` as one packet."""
    return b"".join(
        part for p in parcels for part in (_PARCEL.pack(p.key, p.first_due, len(p.body)), p.body)
    )


def unpack(packet: bytes) -> Iterable[Parcel]:
    """Yield the parcels of a packet."""
    position = 0
    while position < len(packet):
        key, first_due, size = _PARCEL.unpack_from(packet, position)
        position += _PARCEL.size
        yield Parcel(key, first_due, packet[position : position + size])
        position += size


def to_bytes(batch: pa.RecordBatch) -> bytes:
    """Return a record batch without its schema."""
    body: bytes = batch.serialize().to_pybytes()
    return body


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as one record batch without its schema."""
    batches = table.combine_chunks().to_batches()
    empty = pa.RecordBatch.from_pylist([], schema=table.schema)
    return to_bytes(batches[0] if batches else empty)


def from_bytes(store: Kept, body: bytes) -> pa.Table:
    """Return the table of `store` in `body`."""
    return pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(body), store.schema)])


def fingerprint(store: Kept) -> bytes:
    """Return 8 bytes that change whenever the store's state can't be read any more."""
    text = f"{STATE_FORMAT} {store.layout}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@dataclass
class BookPage:
    """What a bucket remembers beside its panes.

    `fired` is the last watermark it wrote for, `panes` are the starts of the panes kept, and
    `unwritten` those that changed since open windows were last written.
    """

    fired: int
    panes: list[int]
    unwritten: list[int]

    def to_bytes(self, layout: bytes) -> bytes:
        """Return the page with the fingerprint of the store it belongs to."""
        starts = [*self.panes, *self.unwritten]
        head = _BOOK.pack(layout, self.fired, len(self.panes), len(self.unwritten))
        return head + struct.pack(f"<{len(starts)}q", *starts)

    @staticmethod
    def from_bytes(body: bytes, layout: bytes) -> BookPage:
        """Return the page in `body`, or raise ValueError where it is of another layout."""
        found, fired, kept, unwritten = _BOOK.unpack_from(body)
        if found != layout:
            raise ValueError(
                "The restored state belongs to another declaration of the view's measures or "
                "window, or to another release; rebuild the view with `kappa replay`, or start "
                "without a savepoint."
            )
        starts = list(struct.unpack_from(f"<{kept + unwritten}q", body, _BOOK.size))
        return BookPage(fired, starts[:kept], starts[kept:])
