"""Check values from outside against an Avro schema, and say what is wrong with one. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from numbers import Integral
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CLASSES: dict[str, type] = {"boolean": bool, "null": type(None), "bytes": bytes}
_BOUNDS = {"int": 1 << 31, "long": 1 << 63}


class BadValue(ValueError):
    """A value that its field can't hold."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f'field "{field}" {why}')
        self.field = field


def conform(
    document: Any, schema: Mapping[str, Any], *, ignore_unknown: bool = False
) -> dict[str, Any]:
    """Return `document` as an event of `schema`: defaults filled in, times as epoch milliseconds.

    Raises `BadValue` for a missing, unknown or ill-typed field.
    """
    if not isinstance(document, dict):
        raise BadValue(schema["name"], f"must be an object and is {_kind(document)}")
    event = {field["name"]: _field_value(document, field) for field in schema["fields"]}
    unknown = [name for name in document if name not in event]
    if unknown and not ignore_unknown:
        raise BadValue(unknown[0], "is not in the schema; pass --ignore-unknown to leave it out")
    return event


def epoch_ms(value: int | str | datetime) -> int:
    """Return a time as epoch milliseconds; what is finer is cut off.

    Takes epoch milliseconds, ISO 8601 with an offset, or a datetime with one. Raises ValueError.
    """
    if isinstance(value, int):
        return value
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if moment.tzinfo is None:
        raise ValueError(f"time {value} has no UTC offset; end it with Z or +00:00")
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _field_value(document: Mapping[str, Any], field: Mapping[str, Any]) -> Any:
    name = field["name"]
    if name not in document:
        if "default" not in field:
            raise BadValue(name, "is missing")
        return field["default"]
    return conform_value(document[name], field["type"], name)


def conform_value(value: Any, avro_type: Any, name: str) -> Any:
    """Return `value` as field `name` of type `avro_type` has it, or raise `BadValue`."""
    if isinstance(avro_type, list):
        return _union_value(value, avro_type, name)
    logical = avro_type.get("logicalType") if isinstance(avro_type, dict) else None
    primitive = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    if logical == "timestamp-millis":
        return _time(value, name)
    if primitive in _BOUNDS:
        return _integer(value, primitive, name)
    if primitive == "string":
        return _string(value, name)
    if primitive == "array":
        return _list(value, avro_type["items"], name)
    if primitive in ("float", "double") and isinstance(value, int | float):
        if isinstance(value, bool):
            raise BadValue(name, "must be a number and is a boolean")
        try:
            return float(value)
        except OverflowError:
            raise BadValue(name, "is larger than any floating-point number") from None
    expected: type = _CLASSES.get(primitive, object)
    if not isinstance(value, expected) or primitive in ("float", "double"):
        raise BadValue(name, f"must be {_type_name(avro_type)} and is {_kind(value)}")
    return value


def _union_value(value: Any, branches: list[Any], name: str) -> Any:
    if value is None and "null" in branches:
        return None
    others = [branch for branch in branches if branch != "null"]
    for branch in others[:-1]:
        try:
            return conform_value(value, branch, name)
        except BadValue:
            continue
    return conform_value(value, others[-1], name)


def _time(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str | datetime):
        raise BadValue(
            name, f"must be epoch milliseconds or an ISO 8601 time and is {_kind(value)}"
        )
    try:
        moment = epoch_ms(value)
    except ValueError as error:
        raise BadValue(name, f"is no time: {error}") from error
    # Kafka takes a record's timestamp of zero to mean "now".
    if not 0 < moment < _BOUNDS["long"]:
        raise BadValue(name, f"is {value} and must be after 1970-01-01T00:00:00Z")
    return moment


def _integer(value: Any, primitive: str, name: str) -> int:
    # NumPy's integers are no int of Python's.
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise BadValue(name, f"must be an integer and is {_kind(value)}")
    bound, number = _BOUNDS[primitive], int(value)
    if not -bound <= number < bound:
        raise BadValue(name, f"is {number} and must fit in {bound.bit_length()} bits")
    return number


def _list(value: Any, item_type: Any, name: str) -> list[Any]:
    # A text would do as a list of its letters, and NumPy's arrays are no sequence by name.
    is_list = hasattr(value, "__len__") and hasattr(value, "__iter__")
    if isinstance(value, str | bytes | Mapping) or not is_list:
        raise BadValue(name, f"must be a list and is {_kind(value)}")
    return [conform_value(item, item_type, f"{name}[]") for item in value]


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadValue(name, f"must be a string and is {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadValue(name, "holds a lone surrogate and is no valid text") from error
    return value


def _type_name(avro_type: Any) -> str:
    return f"of type {avro_type['type'] if isinstance(avro_type, dict) else avro_type}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "an integer", float: "a fraction", str: "a string"}
    names |= {list: "a list", dict: "an object", datetime: "a time", bytes: "bytes"}
    shown = repr(value)
    text = names.get(type(value), type(value).__name__)
    return f"{text}, {shown}" if len(shown) <= 60 else text
