"""Say in words why one Avro schema can't read what another wrote. No I/O.

The registry decides; this explains, because some registries answer with a place only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Avro 1.12, "Schema Resolution": what a writer's primitive type may be read as.
_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def obstacles(writer: Mapping[str, Any], reader: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a sentence for each thing that keeps `reader` from reading `writer`'s records."""
    return tuple(_record_obstacles(writer, reader, ""))


def _record_obstacles(writer: Any, reader: Any, path: str) -> Iterator[str]:
    if not _is_record(writer):
        yield f"{_name(writer)} became record {_name(reader)!r}; events were none of its kind."
        return
    if not _is_record(reader):
        yield f"record {writer.get('name')!r} became {_name(reader)}; events are records."
        return
    if writer.get("name") != reader.get("name"):
        yield f"record {writer.get('name')!r} became {reader.get('name')!r}; keep its name."
    written = {field["name"]: field for field in writer["fields"]}
    for field in reader["fields"]:
        place = f"{path}{field['name']}"
        names = (field["name"], *field.get("aliases", ()))
        old = next((written[name] for name in names if name in written), None)
        if old is not None:
            yield from _type_obstacles(old["type"], field["type"], place)
        elif "default" not in field:
            yield f'field "{place}" is new and has no default; give it one.'


def _is_record(avro_type: Any) -> bool:
    return isinstance(avro_type, Mapping) and "fields" in avro_type


def _type_obstacles(writer: Any, reader: Any, place: str) -> Iterator[str]:
    unreadable = [
        branch for branch in _branches(writer) if not _readable(branch, _branches(reader))
    ]
    for branch in unreadable:
        yield f'field "{place}" was written as {_name(branch)} and is now {_name(reader)}.'
    if isinstance(writer, dict) and isinstance(reader, dict) and not unreadable:
        if writer["type"] == "record":
            yield from _record_obstacles(writer, reader, f"{place}.")
        elif writer["type"] in ("array", "map"):
            inner = "items" if writer["type"] == "array" else "values"
            yield from _type_obstacles(writer[inner], reader[inner], f"{place}[]")


def _branches(avro_type: Any) -> list[Any]:
    return avro_type if isinstance(avro_type, list) else [avro_type]


def _readable(branch: Any, readers: list[Any]) -> bool:
    kind = _kind(branch)
    return any(_kind(r) == kind or _kind(r) in _PROMOTIONS.get(kind, ()) for r in readers)


def _kind(avro_type: Any) -> str:
    return str(avro_type["type"]) if isinstance(avro_type, dict) else str(avro_type)


def _name(avro_type: Any) -> str:
    if isinstance(avro_type, list):
        return " or ".join(_name(branch) for branch in avro_type)
    if isinstance(avro_type, dict):
        return str(avro_type.get("logicalType") or avro_type.get("name") or avro_type["type"])
    return str(avro_type)
