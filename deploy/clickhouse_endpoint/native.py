"""Native blocks as clients of protocol version 54454 and later read them. No I/O.

The engine writes the Native format of protocol version 0. A client that states a later one
(`client_protocol_version`, as the Go driver and Grafana's plugin do) expects a head before each
block and a byte after each column's type that tells of no custom serialisation. To put them in,
one must know where each column ends; this follows the layout of each type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from deploy.clickhouse_endpoint.errors import QueryError, not_implemented

FIRST_VERSION = 54454
# Field 1, overflows: no; field 2, bucket: -1; end.
_BLOCK_HEAD = bytes((1, 0, 2, 255, 255, 255, 255, 0))
_NO_CUSTOM_SERIALISATION = b"\0"

# Returns where the data of so many rows ends, given the bytes and where it starts.
_Skip = Callable[[bytes, int, int], int]

_WIDTHS = {
    **dict.fromkeys(("UInt8", "Int8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("UInt16", "Int16", "Date", "Enum16", "BFloat16"), 2),
    **dict.fromkeys(("UInt32", "Int32", "Float32", "Date32", "DateTime", "IPv4", "Time"), 4),
    **dict.fromkeys(("UInt64", "Int64", "Float64", "DateTime64", "Time64"), 8),
    **dict.fromkeys(("UInt128", "Int128", "UUID", "IPv6"), 16),
    **dict.fromkeys(("UInt256", "Int256"), 32),
}
_DECIMALS = ((9, 4), (18, 8), (38, 16), (76, 32))
_NAMES_OF = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(LineString)",
    "MultiPolygon": "Array(Polygon)",
}
# Quoted text, brackets, and what separates arguments or an element's name from its type.
_PIECE = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(), ]|[^'`(), ]+")
_KEYS_BIT = 1 << 9


def upgrade(blocks: bytes) -> bytes:
    """Return whole `blocks` of protocol version 0 in the form of version 54454.

    Raises QueryError for a column of a type whose layout is not known here.
    """
    position = 0
    parts: list[bytes] = []
    while position < len(blocks):
        parts.append(_BLOCK_HEAD)
        start = position
        columns, position = _number(blocks, position)
        rows, position = _number(blocks, position)
        for _ in range(columns):
            _, position = _text(blocks, position)
            type_name, position = _text(blocks, position)
            parts += (blocks[start:position], _NO_CUSTOM_SERIALISATION)
            start = position
            if rows:
                prefix, skip = _layout(type_name)
                position = skip(blocks, position + prefix, rows)
        parts.append(blocks[start:position])
    return b"".join(parts)


def upgraded(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each of `stream`, which are whole blocks, in the form of version 54454."""
    for blocks in stream:
        yield upgrade(blocks)


def is_wanted(stated_version: str, output_format: str) -> bool:
    """Return whether a client that states this version wants an answer's blocks upgraded."""
    if output_format != "Native" or not stated_version.isdecimal():
        return False
    return int(stated_version) >= FIRST_VERSION


def _number(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _text(data: bytes, position: int) -> tuple[str, int]:
    size, position = _number(data, position)
    return data[position : position + size].decode("utf-8", "replace"), position + size


def _fixed(width: int) -> _Skip:
    return lambda data, position, rows: position + width * rows


def _strings(data: bytes, position: int, rows: int) -> int:
    for _ in range(rows):
        size = data[position]
        position += 1
        if size >= 0x80:
            size, position = _number(data, position - 1)
        position += size
    return position


def _nullable(inner: _Skip) -> _Skip:
    return lambda data, position, rows: inner(data, position + rows, rows)


def _array(inner: _Skip) -> _Skip:
    def skip(data: bytes, position: int, rows: int) -> int:
        position += 8 * rows
        if not rows:
            return position
        elements = int.from_bytes(data[position - 8 : position], "little")
        return inner(data, position, elements) if elements else position

    return skip


def _tuple(inner: list[_Skip]) -> _Skip:
    def skip(data: bytes, position: int, rows: int) -> int:
        for each in inner:
            position = each(data, position, rows)
        return position

    return skip


def _low_cardinality(keys: _Skip) -> _Skip:
    def skip(data: bytes, position: int, rows: int) -> int:
        kind = int.from_bytes(data[position : position + 8], "little")
        position += 8
        if kind & _KEYS_BIT:
            count = int.from_bytes(data[position : position + 8], "little")
            position = keys(data, position + 8, count)
        return position + 8 + rows * (1 << (kind & 0xFF))

    return skip


@lru_cache(maxsize=1024)
def _layout(type_name: str) -> tuple[int, _Skip]:
    """Return the size of the type's prefix and how to skip its data."""
    type_name = _NAMES_OF.get(type_name, type_name)
    name, arguments = _split(type_name)
    if name in ("Array", "Nullable"):
        prefix, inner = _layout(arguments[0])
        return prefix, _array(inner) if name == "Array" else _nullable(inner)
    if name == "LowCardinality":
        _, keys = _layout(re.sub(r"^Nullable\((.*)\)$", r"\1", arguments[0]))
        return 8, _low_cardinality(keys)
    if name == "SimpleAggregateFunction":
        return _layout(arguments[-1])
    if name in ("Tuple", "Map", "Nested") and arguments:
        layouts = [_layout(each) for each in arguments]
        together = _tuple([skip for _, skip in layouts])
        prefix = sum(size for size, _ in layouts)
        return prefix, together if name == "Tuple" else _array(together)
    return 0, _scalar(name, arguments, type_name)


def _scalar(name: str, arguments: list[str], type_name: str) -> _Skip:
    if name == "String":
        return _strings
    if name == "FixedString":
        return _fixed(int(arguments[0]))
    if name == "Decimal":
        return _fixed(next(width for digits, width in _DECIMALS if int(arguments[0]) <= digits))
    if name.startswith("Interval"):
        return _fixed(8)
    if name in _WIDTHS:
        return _fixed(_WIDTHS[name])
    raise _unknown(type_name)


def _unknown(type_name: str) -> QueryError:
    return not_implemented(
        f"Type {type_name} is not sent to clients of protocol version {FIRST_VERSION} and later; "
        "convert the column, for example by toString()."
    )


def _split(type_name: str) -> tuple[str, list[str]]:
    """Return a type's name and its arguments' types, without the names of a tuple's elements."""
    name, bracket, rest = type_name.partition("(")
    if not bracket:
        return name, []
    arguments, current, depth = [], "", 0
    for piece in _PIECE.findall(rest[:-1]):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            arguments.append(current)
            current = ""
        elif piece == " " and depth == 0:
            current = ""
        else:
            current += piece
    return name, [*arguments, current] if rest != ")" else []
