"""Dead letters as they stand in ClickHouse: found by filters, decoded, mended and judged anew."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import fastavro
import numpy as np

from schemas.framing import HEADER_BYTES, header
from schemas.registry import Registry, UnknownSchemaId
from schemas.streams import Stream
from schemas.values import BadValue, conform, epoch_ms
from sinks.clickhouse import ClickHouse
from udfs.avro_rows import checked
from udfs.decode import Decoder, needed_fields

Place = tuple[int, int]
"""Partition and offset in the events topic."""

_PLACES = 5_000


class BadRepair(ValueError):
    """A repair that can't be applied, with the reason."""


@dataclass(frozen=True)
class Letter:
    """One dead letter: why it is one, where it stood in the events topic, and its bytes."""

    reason: str
    detail: str
    partition: int
    offset: int
    timestamp_ms: int
    schema_id: int | None
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> Place:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True)
class Filter:
    """Which dead letters are meant; what is None or empty says nothing."""

    reason: str = ""
    places: tuple[Place, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None

    def condition(self) -> tuple[str, dict[str, Any]]:
        """Return the SQL condition and its parameters."""
        parts, values = ["stream = %(stream)s"], dict[str, Any]()
        if self.reason:
            parts.append("reason = %(reason)s")
            values["reason"] = self.reason
        if self.since:
            parts.append("timestamp >= %(since)s")
            values["since"] = self.since
        if self.until:
            parts.append("timestamp < %(until)s")
            values["until"] = self.until
        if self.places:
            parts.append("(partition, offset) IN %(places)s")
            values["places"] = list(self.places)
        return " AND ".join(parts), values


@dataclass(frozen=True)
class Mended:
    """A letter and the event that is to take its place; `fault` says why it still can't."""

    letter: Letter
    event: Mapping[str, Any] | None
    value: bytes
    key: bytes
    timestamp_ms: int
    fault: str = ""


def find(clickhouse: ClickHouse, stream: Stream, wanted: Filter) -> list[Letter]:
    """Return the dead letters of `stream`, each event once, by partition and offset."""
    if "dead_letters_loaded" not in clickhouse.table_ids():
        return []
    if len(wanted.places) > _PLACES:
        # A statement has no room for all of them.
        places = sorted(wanted.places)
        parts = (places[at : at + _PLACES] for at in range(0, len(places), _PLACES))
        some = (find(clickhouse, stream, replace(wanted, places=tuple(part))) for part in parts)
        return list(chain.from_iterable(some))[: wanted.limit]
    condition, values = wanted.condition()
    limit = f" LIMIT {wanted.limit:d}" if wanted.limit is not None else ""
    answer = clickhouse.query(
        "SELECT reason, detail, partition, offset, toUnixTimestamp64Milli(timestamp), schema_id,"
        " hex(key), hex(value) FROM dead_letters"
        f" WHERE {condition} ORDER BY partition, offset, version DESC"
        f" LIMIT 1 BY partition, offset{limit}",
        {"stream": stream.name, **values},
    )
    return [_letter(*row) for row in answer.rows]


class Workbench:
    """Decodes letters by the registry's schemas and judges events by the stream's rules of now."""

    def __init__(self, registry: Registry, stream: Stream, schema_id: int) -> None:
        self._registry, self._stream = registry, stream
        self._header = header(schema_id)
        self._schema = fastavro.parse_schema(dict(stream.schema))
        self._decoder = Decoder(stream, self._schema_of, needed_fields(stream, set()))

    def decoded(self, letter: Letter) -> dict[str, Any] | None:
        """Return the letter's event as its writer wrote it; None where its bytes tell nothing."""
        value = letter.value or b""
        writer = None if letter.schema_id is None else self._schema_of(letter.schema_id)
        if writer is None:
            return None
        body = io.BytesIO(value[HEADER_BYTES:])
        try:
            event = fastavro.schemaless_reader(body, checked(writer).parsed, None)
        except Exception:
            return None
        return event if isinstance(event, dict) else None

    def mended(
        self, letter: Letter, changes: Mapping[str, Any], whole: Mapping[str, Any] | None = None
    ) -> Mended:
        """Return the event that `changes` make of the letter's, or `whole`, and its verdict."""
        event = dict(whole) if whole is not None else self.decoded(letter)
        if event is None:
            return Mended(letter, None, b"", b"", 0, "its bytes are no event; give one with --from")
        try:
            event = conform(event | dict(changes), self._stream.schema, ignore_unknown=True)
            body = io.BytesIO()
            fastavro.schemaless_writer(body, self._schema, event)
            moment = epoch_ms(event[self._stream.event_time_field])
            key = event[self._stream.key_field].encode()
        except (BadValue, ValueError, TypeError, AttributeError) as error:
            return Mended(letter, event, b"", b"", 0, str(error))
        made = Mended(letter, event, self._header + body.getvalue(), key, moment)
        return replace(made, fault=self.fault(made.value, moment))

    def fault(self, value: bytes | None, timestamp_ms: int) -> str:
        """Return what is wrong with an event by the rules of now; empty for a good one."""
        values = np.empty(1, dtype=object)
        values[0] = value
        batch = self._decoder.decode(values, np.array([timestamp_ms], dtype=np.int64))
        return "" if batch.reasons[0] is None else f"{batch.reasons[0]}: {batch.details[0]}"

    def _schema_of(self, schema_id: int) -> dict[str, Any] | None:
        try:
            return self._registry.schema_by_id(schema_id)
        except UnknownSchemaId:
            return None


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Return the values of `field=value`, each as JSON where it is, else as text."""
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadRepair(f'"{text}" is no field=value.')
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    return changes


def write_repairs(path: Path, mended: Iterable[Mended]) -> int:
    """Write one JSON line a letter, to be edited and read by `read_repairs`; return how many."""
    count = 0
    with path.open("w", encoding="utf-8") as lines:
        for one in mended:
            letter = one.letter
            document = {
                "partition": letter.partition,
                "offset": letter.offset,
                "reason": letter.reason,
                "fault": one.fault,
                "event": one.event,
            }
            lines.write(json.dumps(document, ensure_ascii=False, default=str) + "\n")
            count += 1
    return count


def read_repairs(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield partition and offset and the event of each line, or raise `BadRepair`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRepair(f"{path}: {error}") from error
    # Texts may hold what Python takes for an end of a line, and JSON does not.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            place = int(document["partition"]), int(document["offset"])
            event = document["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadRepair(
                f"{path}, line {number}: a repair has partition, offset and event ({error})."
            ) from error
        if not isinstance(event, dict):
            raise BadRepair(f"{path}, line {number}: its event is {event!r}; fill it in.")
        yield place, event


def _letter(*columns: Any) -> Letter:
    letter = Letter(*columns)
    # Bytes come as hexadecimal digits: ClickHouse's strings may hold what is no text.
    return replace(letter, key=_unhex(columns[6]), value=_unhex(columns[7]))


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
