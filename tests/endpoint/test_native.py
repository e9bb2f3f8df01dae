"""Native blocks for clients of a later protocol version: the Go driver, Grafana's plugin."""

from __future__ import annotations

import pytest

from deploy.clickhouse_endpoint import native
from deploy.clickhouse_endpoint.errors import QueryError
from tests.endpoint.running import Endpoint

_HEAD = bytes.fromhex("01 00 02 ffffffff 00")

_ALLOWED = {"allow_suspicious_low_cardinality_types": "1"}
_EXPRESSIONS = [
    "number",
    "toInt8(number)",
    "toUInt16(number)",
    "toFloat32(number)",
    "number % 2 = 0",
    "toInt128(number)",
    "toUInt256(number)",
    "toString(number)",
    "repeat('x', number * 50)",
    "toFixedString('ab', 3)",
    "toDate(number)",
    "toDate32(number)",
    "toDateTime(number)",
    "toDateTime64(number, 3, 'UTC')",
    "toDecimal32(number, 2)",
    "toDecimal64(number, 4)",
    "toDecimal128(number, 4)",
    "toDecimal256(number, 4)",
    "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')",
    "toIPv4('127.0.0.1')",
    "toIPv6('::1')",
    "CAST(number % 2 AS Enum8('a (,' = 0, 'b' = 1))",
    "CAST(number % 2 AS Enum16('a' = 0, 'it\\'s' = 1))",
    "INTERVAL 3 DAY",
    "if(number % 2 = 0, NULL, number)",
    "nullIf(concat('x', toString(number)), 'x0')",
    "NULL",
    "range(number)",
    "arrayMap(x -> toString(x), range(number))",
    "arrayMap(x -> range(x), range(number))",
    "CAST([] AS Array(String))",
    "CAST([] AS Array(LowCardinality(String)))",
    "[]",
    "toLowCardinality(toString(number % 3))",
    "CAST(if(number % 2 = 0, NULL, toString(number)) AS LowCardinality(Nullable(String)))",
    "CAST(toDate(number) AS LowCardinality(Date))",
    "arrayMap(x -> toLowCardinality(toString(x % 3)), range(number))",
    "(number, toString(number))",
    "CAST((number, 'x') AS Tuple(a UInt64, `b (,c` String))",
    "CAST((number, ['x']) AS Tuple(a UInt64, b Array(LowCardinality(String))))",
    "[(number, 'x'), (1, 'y')]",
    "map('a', number, 'b', 2)",
    "CAST(map('a', [number]) AS Map(LowCardinality(String), Array(UInt64)))",
    "CAST(number AS SimpleAggregateFunction(sum, UInt64))",
    "CAST((1., 2.) AS Point)",
    "CAST([[(1., 2.)], []] AS Polygon)",
]


def _column(endpoint: Endpoint, name: str, expression: str, rows: int) -> tuple[bytes, bytes]:
    """Return the name and type, and the data, of a column that is a block of its own."""
    sql = f"SELECT ({expression}) AS {name} FROM numbers({rows}) FORMAT Native"
    block = endpoint.query(sql, wait_end_of_query=1, **_ALLOWED).content
    counts = 2 if rows < 128 else 3
    type_size = block[counts + 1 + len(name)]
    assert type_size < 128, "the test reads short type names only"
    split = counts + 2 + len(name) + type_size
    return block[counts:split], block[split:]


@pytest.mark.stack
@pytest.mark.parametrize("rows", [1, 5, 300])
def test_every_column_ends_where_it_does_alone(endpoint: Endpoint, rows: int) -> None:
    named = [(f"c{i:02}", expression) for i, expression in enumerate(_EXPRESSIONS)]
    columns = [_column(endpoint, name, expression, rows) for name, expression in named]
    count = bytes([rows]) if rows < 128 else bytes([rows & 0x7F | 0x80, rows >> 7])
    body = b"".join(name + b"\0" + data for name, data in columns)
    expected = _HEAD + bytes([len(columns)]) + count + body
    selected = ", ".join(f"({expression}) AS {name}" for name, expression in named)
    sql = f"SELECT {selected} FROM numbers({rows})"
    for waits in ({}, {"wait_end_of_query": "1"}):
        answer = endpoint.query(
            sql, default_format="Native", client_protocol_version="54460", **waits, **_ALLOWED
        )
        assert answer.content == expected
    older = endpoint.query(
        sql, default_format="Native", client_protocol_version="54405", **_ALLOWED
    )
    assert older.content == expected[len(_HEAD) : len(_HEAD) + 1 + len(count)] + b"".join(
        name + data for name, data in columns
    )


@pytest.mark.stack
def test_many_blocks_and_none(endpoint: Endpoint) -> None:
    later = {"client_protocol_version": "54460", "default_format": "Native"}
    sql = "SELECT number, toString(number) FROM numbers(5) SETTINGS max_block_size = 2"
    assert endpoint.query(sql, **later).content.count(_HEAD) == 3
    assert endpoint.query("SELECT 1 WHERE 0", **later, wait_end_of_query="1").content == b""


@pytest.mark.stack
def test_a_type_of_unknown_layout_is_told(endpoint: Endpoint) -> None:
    later = {"client_protocol_version": "54460", "default_format": "Native"}
    answer = endpoint.query("SELECT uniqState(number) AS s FROM numbers(3)", **later)
    assert answer.status_code == 501
    assert "Type AggregateFunction(uniq, UInt64) is not sent" in answer.text


def test_garbage_is_no_endless_loop() -> None:
    with pytest.raises((QueryError, IndexError)):
        native.upgrade(b"\x01\x01\x01a\x06String\xff\xff")


@pytest.mark.parametrize(
    ("version", "output_format", "wanted"),
    [
        ("54460", "Native", True),
        ("54454", "Native", True),
        ("54453", "Native", False),
        ("", "Native", False),
        ("x", "Native", False),
        ("54460", "RowBinary", False),
    ],
)
def test_only_later_versions_get_later_blocks(
    version: str, output_format: str, wanted: bool
) -> None:
    assert native.is_wanted(version, output_format) is wanted
