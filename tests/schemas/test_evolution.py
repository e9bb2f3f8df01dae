"""Why one schema can't read another's records, in words."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.evolution import obstacles
from schemas.streams import PAGE_VIEWS


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields)}


A_LONG = {"name": "a", "type": "long"}


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (record(A_LONG), record(A_LONG)),
        (record(A_LONG), record()),
        (record(), record({"name": "b", "type": ["null", "string"], "default": None})),
        (record({"name": "a", "type": "int"}), record(A_LONG)),
        (record(A_LONG), record({"name": "a", "type": ["null", "long"], "default": None})),
        (record(A_LONG), record({"name": "b", "aliases": ["a"], "type": "long"})),
        (PAGE_VIEWS.schema, PAGE_VIEWS.schema),
    ],
)
def test_compatible_changes_have_no_obstacles(
    writer: dict[str, Any], reader: dict[str, Any]
) -> None:
    assert obstacles(writer, reader) == ()


@pytest.mark.parametrize(
    ("writer", "reader", "reason"),
    [
        (record(), record(A_LONG), 'field "a" is new and has no default; give it one.'),
        (
            record(A_LONG),
            record({"name": "a", "type": "int"}),
            'field "a" was written as long and is now int.',
        ),
        (
            record({"name": "a", "type": ["null", "long"]}),
            record(A_LONG),
            'field "a" was written as null and is now long.',
        ),
        (
            record({"name": "in", "type": record()}),
            record({"name": "in", "type": record(A_LONG)}),
            'field "in.a" is new and has no default; give it one.',
        ),
        (
            record({"name": "as", "type": {"type": "array", "items": "string"}}),
            record({"name": "as", "type": {"type": "array", "items": "long"}}),
            'field "as[]" was written as string and is now long.',
        ),
    ],
)
def test_incompatible_change_is_named(
    writer: dict[str, Any], reader: dict[str, Any], reason: str
) -> None:
    assert obstacles(writer, reader) == (reason,)


def test_renamed_record_is_an_obstacle() -> None:
    renamed = {**record(), "name": "S"}
    assert obstacles(record(), renamed) == ("record 'R' became 'S'; keep its name.",)


@pytest.mark.parametrize(
    "reader", [{"type": "enum", "name": "E", "symbols": ["a"]}, ["null", "string"], "string"]
)
def test_what_is_no_record_is_told_of(reader: Any) -> None:
    (reason,) = obstacles(record(A_LONG), reader)
    assert "events are records" in reason


@pytest.mark.parametrize(
    ("writer", "said"), [("string", "string"), (["null", "string"], "null or string")]
)
def test_what_was_no_record_is_told_of(writer: Any, said: str) -> None:
    assert obstacles(writer, record(A_LONG)) == (
        f"{said} became record 'R'; events were none of its kind.",
    )
