"""Read one Avro record at a time, without trust: its schema and its bytes come from elsewhere."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fastavro

from udfs.avro_columns import UnresolvableSchema

Event = dict[str, Any]

_NAMED = ("record", "error", "fixed", "enum")
_RECORDS = ("record", "error")
# Records that name each other twice double with each, and Arrow has a column for each in the end.
_MOST_TYPES = 10_000


@dataclass(frozen=True)
class WriterSchema:
    """A schema that events are written with; `parsed` as fastavro wants it, names in full.

    With `written`, which has no logical types, it reads values as they are written.
    """

    parsed: Any
    written: Any
    named: Mapping[str, Any]

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The event's fields; types that were declared before stand there in full."""
        return [{**one, "type": _in_full(one["type"], self.named)} for one in self.parsed["fields"]]

    def has_bytes(self, field_type: Any) -> bool:
        """Tell whether values of a field's type have bytes in them, which may be no text."""
        return any(
            part == "bytes" or (isinstance(part, dict) and part["type"] == "bytes")
            for part in _parts(field_type, self.named)
        )

    @property
    def is_for_one_by_one(self) -> bool:
        """Whether it has what pyruhvro has no columns for: fixed sizes, or records of nothing."""
        return any(
            part["type"] in ("fixed", "error") or part.get("fields") == []
            for part in _parts(self.parsed, {})
            if isinstance(part, dict)
        )


def checked(schema: Any) -> WriterSchema:
    """Return a writer's schema; `UnresolvableSchema` where it is none that an event is read with.

    An id is only a number: what the registry knows by it may be no event's schema at all. Nor is a
    type read that holds itself: Arrow has no column for it, and how deep a value of it goes, its
    bytes decide, not the schema.
    """
    if not isinstance(schema, dict) or schema.get("type") not in _RECORDS:
        raise UnresolvableSchema("it is not a record's schema.")
    # What bears fastavro's own marks it would take as it is, for parsed.
    schema = {key: value for key, value in schema.items() if not key.startswith("__")}
    try:
        parsed = fastavro.parse_schema(schema)
        size = _size(parsed, {})
        named = {part["name"]: part for part in _parts(parsed, {}) if _is_named(part)}
        weightless = size <= _MOST_TYPES and _has_weightless_items(parsed, named)
        written = fastavro.parse_schema(plain(schema))
    except Exception as error:
        # Such as a reference that is not resolved, or a nesting without end.
        raise UnresolvableSchema(f"the schema can't be read: {error!r:.200}.") from error
    if size == math.inf:
        raise UnresolvableSchema("a record within itself is not read.")
    if size > _MOST_TYPES:
        raise UnresolvableSchema(f"it has more than {_MOST_TYPES} types, those named in full.")
    if weightless:
        raise UnresolvableSchema("an array's items take no bytes.")
    return WriterSchema(parsed, written, named)


def plain(schema: Any, kept: Collection[str] = (), octets: str = "bytes") -> Any:
    """Return an Avro schema without logical types, but those `kept`: values as they are written.

    `octets` is what bytes are called: a text is written like them.
    """
    if isinstance(schema, list):
        return [plain(branch, kept, octets) for branch in schema]
    if not isinstance(schema, dict):
        return octets if schema == "bytes" else schema
    made = {k: v for k, v in schema.items() if k != "logicalType" or v in kept}
    if "fields" in made:
        fields = made["fields"]
        made["fields"] = [{**one, "type": plain(one["type"], kept, octets)} for one in fields]
    for inner in ("items", "values"):
        if inner in made:
            made[inner] = plain(made[inner], kept, octets)
    if made["type"] in (*_NAMED, "array", "map") or "logicalType" in made:
        return made
    return plain(made["type"], kept, octets)


def read_strictly(body: bytes, schema: Any) -> Event | None:
    """Return the event in `body`, or None where it is anything but what a writer would write.

    `schema` is `plain` and parsed. fastavro is lenient with some broken records, such as one with a
    negative branch of a union.
    """
    written = io.BytesIO()
    try:
        event: Any = fastavro.schemaless_reader(io.BytesIO(body), schema, None)
        fastavro.schemaless_writer(written, schema, event)
    except Exception:
        # A broken record makes it raise whatever its bytes lead to.
        return None
    return event if written.getvalue() == body else None


def has_more(body: bytes, schema: Any) -> bool:
    """Tell whether bytes are left over after an event that can be read."""
    stream = io.BytesIO(body)
    try:
        fastavro.schemaless_reader(stream, schema, None)
    except Exception:
        return False
    return stream.tell() < len(body)


def _in_full(schema: Any, named: Mapping[str, Any]) -> Any:
    """Return a field's type with what it refers to by name, but for names within records."""
    if isinstance(schema, list):
        return [_in_full(branch, named) for branch in schema]
    if isinstance(schema, dict) and schema["type"] == "array":
        return {**schema, "items": _in_full(schema["items"], named)}
    return named.get(schema, schema) if isinstance(schema, str) else schema


def _is_named(part: Any) -> bool:
    return isinstance(part, dict) and part["type"] in _NAMED


def _parts(schema: Any, named: Mapping[str, Any]) -> Iterator[Any]:
    """Yield `schema` and all that it consists of, what it refers to by its name in `named` once."""
    waiting, seen = [schema], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
            continue
        if isinstance(part, str) and part in named and part not in seen:
            seen.add(part)
            waiting.append(named[part])
            continue
        yield part
        if isinstance(part, dict):
            waiting += _made_of(part)


def _made_of(part: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the types that a type is made of, as they are written there."""
    yield from (part[key] for key in ("items", "values") if key in part)
    yield from (one["type"] for one in part.get("fields", ()))
    if isinstance(part["type"], dict | list):
        yield part["type"]


def _size(schema: Any, sizes: dict[str, float]) -> float:
    """Return how many types `schema` is of with all that it names in full; endless within itself.

    `sizes` has those of the types declared before, by name.
    """
    if isinstance(schema, str):
        return sizes.get(schema, 1)
    if isinstance(schema, list):
        return sum(_size(branch, sizes) for branch in schema)
    if not _is_named(schema):
        return 1 + sum(_size(part, sizes) for part in _made_of(schema))
    # What is named before it ends is around it.
    sizes[schema["name"]] = math.inf
    sizes[schema["name"]] = 1 + sum(_size(part, sizes) for part in _made_of(schema))
    return sizes[schema["name"]]


def _has_weightless_items(schema: Any, named: Mapping[str, Any]) -> bool:
    """Tell whether `schema` has an array whose items take no bytes.

    A value of a few bytes may then declare billions of items and keep its reader busy for ever.
    """
    return any(
        isinstance(part, dict) and part["type"] == "array" and _is_weightless(part["items"], named)
        for part in _parts(schema, {})
    )


def _is_weightless(schema: Any, named: Mapping[str, Any]) -> bool:
    if isinstance(schema, str):
        return _is_weightless(named[schema], named) if schema in named else schema == "null"
    if isinstance(schema, list) or schema["type"] in ("array", "map", "enum"):
        # Which branch it is takes a byte, and so does an end.
        return False
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    if schema["type"] in _RECORDS:
        return all(_is_weightless(field["type"], named) for field in schema["fields"])
    return _is_weightless(schema["type"], named)
