"""From the parameters of a request to one bound statement, and to the next page. No I/O.

Pages follow each other by the values of the last row (keyset paging), so rows that are added or
revised meanwhile neither repeat a page nor skip one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from serving.catalogue import ViewColumn, ViewInfo
from serving.errors import bad_request, unknown
from sinks.sql import identifier

DEFAULT_LIMIT, MAX_LIMIT = 100, 10_000
MAX_VALUES, MAX_CHARACTERS = 50, 4_000
# An address has to hold it beside all that is asked.
MAX_CURSOR = 8_000
_RESERVED = ("from", "to", "order", "limit", "cursor", "format")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = "v"
_ZEROS = {"String": "''", "Bool": "false"}


class Format(StrEnum):
    """What an answer is written in."""

    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


@dataclass(frozen=True)
class Statement:
    """A SELECT with bound parameters. It asks for one row more than `limit`, to see if there is."""

    sql: str
    parameters: Mapping[str, Any]
    limit: int
    format: Format
    _order: tuple[ViewColumn, ...]
    _digest: str

    def next_cursor(self, last_row: Mapping[str, Any]) -> str:
        """Return what leads to the page that begins after `last_row`, whose text is bytes.

        Raises `ApiError` with status 400 where that would be too long.
        """
        values = [_json_value(last_row[column.name]) for column in self._order]
        text = json.dumps([self._digest, *values], separators=(",", ":"), ensure_ascii=False)
        cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        if len(cursor) > MAX_CURSOR:
            names = ", ".join(column.name for column in self._order)
            raise bad_request(
                f"The values of {names} are too long to page by; order by another column."
            )
        return cursor


def statement(database: str, view: ViewInfo, given: Sequence[tuple[str, str]]) -> Statement:
    """Return what the parameters `given`, in pairs of name and value, ask of `view`.

    Raises `ApiError` with status 400 for what can't be asked.
    """
    _check_size(given)
    single, filters = _sorted_out(view, given)
    bound = _Bound()
    conditions = [_any_of(view.by_name[name], texts, bound) for name, texts in filters.items()]
    conditions += _time_range(view, single, bound)
    ordered, descending = _order(view, single.get("order", ""))
    digest = _digest(view.name, filters, single)
    if "cursor" in single:
        conditions.append(_after(single["cursor"], digest, ordered, descending, bound))
    limit = _limit(single.get("limit", ""))
    direction = " DESC" if descending else ""
    items = ", ".join(f"{item}{direction}" for item in _items(ordered, descending))
    names = ", ".join(identifier(column.name) for column in view.columns)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    sql = (
        f"SELECT {names} FROM {identifier(database)}.{identifier(view.name)} AS {_ROWS}{where} "
        f"ORDER BY {items} LIMIT {limit + 1}"
    )
    output = _format(single.get("format", ""))
    return Statement(sql, bound.values, limit, output, ordered, digest)


class _Bound:
    """Values that go beside the statement, never into it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, kind: str, value: Any) -> str:
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{kind}}}"


def _check_size(given: Sequence[tuple[str, str]]) -> None:
    if len(given) > MAX_VALUES:
        raise bad_request(f"A request may have {MAX_VALUES} parameters, not {len(given)}.")
    # A cursor is as long as the values of a row; what an address may have bounds it.
    if sum(len(value) for name, value in given if name != "cursor") > MAX_CHARACTERS:
        raise bad_request(f"The values of a request may have {MAX_CHARACTERS} characters together.")


def _sorted_out(
    view: ViewInfo, given: Sequence[tuple[str, str]]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the parameters that stand once, and the wanted values by key column."""
    single: dict[str, str] = {}
    filters: dict[str, list[str]] = {}
    for name, value in given:
        if name in view.key:
            filters.setdefault(name, []).append(value)
        elif name not in _RESERVED:
            known = (*view.key, *_RESERVED)
            raise unknown(f"parameter of view {view.name}", name, known, status=400)
        elif name in single:
            raise bad_request(f'Parameter "{name}" is given twice.')
        else:
            single[name] = value
    return single, filters


def _any_of(column: ViewColumn, texts: Sequence[str], bound: _Bound) -> str:
    values = [_bind(column, _value(column, text, column.name), bound) for text in texts]
    return f"{identifier(column.name)} IN ({', '.join(values)})"


def _time_range(view: ViewInfo, single: Mapping[str, str], bound: _Bound) -> list[str]:
    conditions = []
    for name, comparison in (("from", ">="), ("to", "<")):
        if name not in single:
            continue
        if view.time_column is None:
            raise bad_request(f'View {view.name} has no time; leave out "{name}".')
        column = view.by_name[view.time_column]
        value = _bind(column, _instant(single[name], name), bound)
        conditions.append(f"{identifier(column.name)} {comparison} {value}")
    return conditions


def _order(view: ViewInfo, text: str) -> tuple[tuple[ViewColumn, ...], bool]:
    """Return the columns that order the rows, made unique by the key, and whether they fall."""
    if not text:
        first, descending = view.time_column, view.time_column is not None
    else:
        first, descending = text.removeprefix("-"), text.startswith("-")
        if first not in view.by_name:
            raise unknown(f"column in view {view.name}", first, view.by_name, status=400)
    names = dict.fromkeys((*([first] if first else []), *view.key))
    return tuple(view.by_name[name] for name in names), descending


def _items(ordered: Sequence[ViewColumn], descending: bool) -> list[str]:
    """Return the expressions to order by; missing values stand last, whatever the direction."""
    items = []
    for column in ordered:
        name, missing = identifier(column.name), _missing(column)
        if not missing:
            items.append(name)
            continue
        zero = _zero(column)
        flag = f"NOT ({missing})" if descending else missing
        present = f"assumeNotNull({_argument(column)})"
        items += [f"toUInt8({flag})", f"if({missing}, {zero}, {present})"]
    return items


def _missing(column: ViewColumn) -> str:
    name = _argument(column)
    if column.plain_type.startswith("Float"):
        return f"ifNull(isNaN({name}), true)"
    return f"isNull({name})" if column.nullable else ""


def _argument(column: ViewColumn) -> str:
    """Return `column` as a call's argument, where a bare name can also be that of a function."""
    return f"{_ROWS}.{identifier(column.name)}"


def _zero(column: ViewColumn) -> str:
    if column.is_time:
        return f"CAST(0 AS {column.plain_type})"
    return _ZEROS.get(column.plain_type, f"CAST(0 AS {column.plain_type})")


def _after(
    cursor: str, digest: str, ordered: Sequence[ViewColumn], descending: bool, bound: _Bound
) -> str:
    """Return the condition that a row stands after the one in `cursor`."""
    values = _cursor_values(cursor, digest, ordered)
    places = []
    for column, value in zip(ordered, values, strict=True):
        if _missing(column):
            places.append(bound.add("UInt8", int((value is None) != descending)))
        places.append(_zero(column) if value is None else _bind(column, value, bound))
    comparison = "<" if descending else ">"
    items = ", ".join(_items(ordered, descending))
    return f"({items}) {comparison} ({', '.join(places)})"


def _cursor_values(cursor: str, digest: str, ordered: Sequence[ViewColumn]) -> list[Any]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found, *values = json.loads(base64.urlsafe_b64decode(padded.encode("ascii")))
        if found != digest or len(values) != len(ordered):
            raise ValueError
        return [_cursor_value(column, value) for column, value in zip(ordered, values, strict=True)]
    except (ValueError, TypeError, RecursionError):
        raise bad_request(
            "The cursor belongs to another query; begin again without it, or keep the filters "
            "and the order."
        ) from None


def _cursor_value(column: ViewColumn, value: Any) -> Any:
    if value is None and _missing(column):
        return None
    if isinstance(value, list) and column.plain_type == "String":
        (digits,) = value
        return bytes.fromhex(digits)
    return _value(column, _text(value), "cursor")


def _text(value: Any) -> str:
    if isinstance(value, str | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        # JSON can have half a surrogate pair, which is no text.
        text.encode()
        return text
    raise ValueError


def _value(column: ViewColumn, text: str, name: str) -> Any:
    """Return `text` as a value of `column`; raises `ApiError` where it is none."""
    kind = column.plain_type
    if column.is_time:
        return _instant(text, name)
    try:
        if kind == "Bool":
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if "Int" in kind:
            return _whole(kind, int(text))
        if kind.startswith("Float"):
            return _finite(kind, float(text))
    except (KeyError, ValueError, OverflowError):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise bad_request(f'"{shown}" is no value of {name}, which is {kind}.') from None
    return bindable(name, text)


def bindable(name: str, text: str) -> str:
    """Return `text`, the value of `name`, which can be one of ClickHouse's parameters, or raise."""
    if "\0" in text:
        raise bad_request(f"The value of {name} has a NUL character.")
    return text


def _whole(kind: str, number: int) -> int:
    bits = int(kind.removeprefix("U").removeprefix("Int"))
    least, most = (
        (0, 2**bits - 1) if kind.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    if not least <= number <= most:
        raise OverflowError
    return number


def _finite(kind: str, number: float) -> float:
    if math.isnan(number):
        raise ValueError
    if kind == "Float32" and math.isfinite(number):
        return float(struct.unpack("f", struct.pack("f", number))[0])
    return number


def _bind(column: ViewColumn, value: Any, bound: _Bound) -> str:
    if isinstance(value, datetime):
        ms = (value - _EPOCH) // timedelta(milliseconds=1)
        return f"fromUnixTimestamp64Milli({bound.add('Int64', ms)}, 'UTC')"
    if isinstance(value, bytes):
        return f"unhex({bound.add('String', value.hex())})"
    return bound.add(column.plain_type, value)


def _instant(text: str, name: str) -> datetime:
    """Return the instant of `text`: epoch milliseconds, or ISO 8601, which is UTC without zone."""
    try:
        if text.lstrip("-").isdigit():
            return _EPOCH + timedelta(milliseconds=int(text))
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise bad_request(
            f'"{shown}" is no time for {name}; write 2026-01-31T12:00:00Z or epoch milliseconds.'
        ) from None


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_LIMIT
    # A longer text is no limit either, and may be more than a number can be read from.
    limit = int(text) if re.fullmatch("[0-9]{1,10}", text) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise bad_request(
            f"The limit is a number from 1 to {MAX_LIMIT:,}; page on with the cursor."
        )
    return limit


def _format(text: str) -> Format:
    try:
        return Format(text.lower() or Format.JSON)
    except ValueError:
        raise unknown("format", text, list(Format), status=400) from None


def _digest(view: str, filters: Mapping[str, list[str]], single: Mapping[str, str]) -> str:
    asked = {name: single.get(name, "") for name in ("from", "to", "order")}
    wanted = {name: sorted(values) for name, values in filters.items()}
    text = json.dumps([view, wanted, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _json_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, bytes):
        return _json_text(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    return repr(value) if isinstance(value, float) else value


def _json_text(value: bytes) -> str | list[str]:
    """Return `value` as text; what is none, or can't be a parameter, in a list by its digits."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return [value.hex()]
    return [value.hex()] if "\0" in text else text
