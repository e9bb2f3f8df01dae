"""Read one Avro record at a time, without trust: its schema and its bytes come from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import fastavro

from udfs.avro_columns import UnresolvableSchema

Event = dict[str, Any]

_NAMED = ("record", "fixed", "enum")


def checked(schema: Any) -> Any:
    """Return a writer's schema as fastavro wants it; `UnresolvableSchema` where it reads no event.

    An id is only a number: what the registry knows by it may be no event's schema at all.
    """
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise UnresolvableSchema("it is not a record's schema.")
    try:
        parsed = fastavro.parse_schema(schema)
    except Exception as error:
        # Such as a reference that is not resolved, which the reader does not know by name.
        raise UnresolvableSchema(f"the schema can't be read: {error!r}.") from error
    if _has_weightless_items(schema, _named(schema)):
        raise UnresolvableSchema("an array's items take no bytes.")
    return parsed


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


def has_type(schema: Any, name: str) -> bool:
    """Tell whether some part of `schema` is of the Avro type `name`."""
    return any(
        part == name or (isinstance(part, dict) and part.get("type") == name)
        for part in _parts(schema)
    )


def _parts(schema: Any) -> Iterator[Any]:
    """Yield `schema` and all that it consists of."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _parts(branch)
        return
    yield schema
    if isinstance(schema, dict):
        inner = [schema[key] for key in ("items", "values") if key in schema]
        inner += [field["type"] for field in schema.get("fields", ())]
        if isinstance(schema["type"], dict | list):
            inner.append(schema["type"])
        for one in inner:
            yield from _parts(one)


def _named(schema: Any) -> dict[str, Any]:
    """Return the schema's named types, each by its name with and without a namespace."""
    found: dict[str, Any] = {}
    for part in _parts(schema):
        if isinstance(part, dict) and part["type"] in _NAMED:
            name = part["name"]
            found[name] = found[name.rpartition(".")[2]] = part
    return found


def _has_weightless_items(schema: Any, named: Mapping[str, Any]) -> bool:
    """Tell whether `schema` has an array whose items take no bytes.

    A value of a few bytes may then declare billions of items and keep its reader busy for ever.
    """
    return any(
        isinstance(part, dict)
        and part["type"] == "array"
        and _is_weightless(part["items"], named, ())
        for part in _parts(schema)
    )


def _is_weightless(schema: Any, named: Mapping[str, Any], within: tuple[str, ...]) -> bool:
    if isinstance(schema, str):
        known = named.get(schema) or named.get(schema.rpartition(".")[2])
        if known is None or schema in within:
            # A record within itself takes no more bytes than what else is in it.
            return schema == "null" or schema in within
        return _is_weightless(known, named, (*within, schema))
    if isinstance(schema, list):
        # Which branch it is takes a byte.
        return False
    if schema["type"] == "fixed":
        return bool(schema["size"] == 0)
    if schema["type"] == "record":
        own = (*within, schema["name"])
        return all(_is_weightless(field["type"], named, own) for field in schema["fields"])
    if schema["type"] in ("array", "map", "enum"):
        return False
    return _is_weightless(schema["type"], named, within)
