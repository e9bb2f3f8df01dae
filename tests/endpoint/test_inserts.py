"""Rows in every format that clients send, whole or not at all."""

from __future__ import annotations

import io
import socket
from base64 import b64encode
from pathlib import Path

import pyarrow as pa
import pytest

from tests.endpoint.running import OWNER, OWNER_PASSWORD, Endpoint, wait_for

pytestmark = pytest.mark.stack

_ROWS = "1\tone\n2\tit\\'s; \\\\ {x}\n"


def _arrow(*, stream: bool) -> bytes:
    table = pa.table({"k": pa.array([1, 2], pa.uint64()), "name": ["one", "it's; \\ {x}"]})
    sink = io.BytesIO()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("input_format", "body"),
    [
        ("CSV", b'1,one\n2,"it\'s; \\ {x}"\n'),
        ("CSVWithNames", b'name,k\none,1\n"it\'s; \\ {x}",2\n'),
        ("TSV", b"1\tone\n2\tit\\'s; \\\\ {x}\n"),
        ("TabSeparated", b"1\tone\n2\tit\\'s; \\\\ {x}"),
        ("JSONEachRow", b'{"k": 1, "name": "one"}\n{"name": "it\'s; \\\\ {x}", "k": 2}\n'),
        ("JSONCompactEachRow", b'[1, "one"]\n[2, "it\'s; \\\\ {x}"]'),
        ("Values", b"(1, 'one'), (1 + 1, 'it''s; \\\\ {x}')"),
        ("RowBinary", b"\1\0\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\0\x0bit's; \\ {x}"),
        ("Arrow", _arrow(stream=False)),
        ("ArrowStream", _arrow(stream=True)),
    ],
)
def test_rows_arrive_in_any_format(
    endpoint: Endpoint, table: str, input_format: str, body: bytes
) -> None:
    for sent in ("url", "body"):
        endpoint.text(f"TRUNCATE TABLE {table}")
        insert = f"INSERT INTO {table} FORMAT {input_format}"
        if sent == "url":
            answer = endpoint.query(body, query=insert)
        else:
            answer = endpoint.query(insert.encode() + b"\n" + body)
        assert (answer.status_code, answer.text) == (200, "")
        assert '"written_rows":"2"' in answer.headers["X-ClickHouse-Summary"]
        assert endpoint.text(f"SELECT * FROM {table} ORDER BY k") == _ROWS


def test_what_is_selected_in_native_form_can_be_inserted(endpoint: Endpoint, table: str) -> None:
    endpoint.text(f"INSERT INTO {table} SELECT number, toString(number) FROM numbers(200000)")
    for binary in ("Native", "RowBinary", "Parquet", "RowBinaryWithNamesAndTypes"):
        body = endpoint.query(f"SELECT * FROM {table} ORDER BY k FORMAT {binary}").content
        endpoint.text(f"CREATE OR REPLACE TABLE {table}_copy AS {table}")
        endpoint.text(body, query=f"INSERT INTO {table}_copy FORMAT {binary}")
        sums = f"SELECT count(), sum(k), sum(cityHash64(name)) FROM {table}"
        assert endpoint.text(f"{sums}_copy") == endpoint.text(sums)


def test_other_kinds_of_insert(endpoint: Endpoint, table: str) -> None:
    endpoint.text(f"INSERT INTO {table} VALUES (1, 'a');")
    endpoint.text(f"INSERT INTO {table} (name) VALUES ('no key')")
    endpoint.text(f"INSERT INTO {table} (* EXCEPT (name)) VALUES (5)")
    endpoint.text(f"INSERT INTO kappa.{table} SELECT k + 1, name FROM {table} WHERE k = 1")
    endpoint.text(f"INSERT INTO {table} SETTINGS max_insert_threads = 1 FORMAT CSV\n3,c\n")
    endpoint.text(
        f"INSERT INTO {table} VALUES ({{k:UInt64}}, {{n:String}})", param_k="4", param_n="d'"
    )
    endpoint.text(b"", query=f"INSERT INTO {table} FORMAT CSV")
    endpoint.text(b"", query=f"INSERT INTO {table} FORMAT Native")
    rows = endpoint.text(f"SELECT * FROM {table} ORDER BY k FORMAT TSVRaw")
    assert rows == "0\tno key\n1\ta\n2\ta\n3\tc\n4\td'\n5\t\n"


@pytest.mark.parametrize("comment_bytes", [65_480, 65_485, 65_490, 65_495, 65_500, 200_000])
def test_an_insert_whose_own_text_is_long(
    endpoint: Endpoint, table: str, comment_bytes: int
) -> None:
    # The text's end falls before, on and after the end of what is read of a body at first.
    insert = f"INSERT INTO {table} /*{'x' * comment_bytes}*/ FORMAT JSONEachRow"
    endpoint.text(f'{insert}\n{{"k": 1, "name": "one"}}\n')
    endpoint.text('{"k": 2}', query=f"INSERT INTO {table} /*{'x' * 2000}*/ FORMAT JSONEachRow")
    assert endpoint.text(f"SELECT * FROM {table} ORDER BY k") == "1\tone\n2\t\n"


@pytest.mark.parametrize(
    ("input_format", "body", "status"),
    [
        ("CSV", b"1,one\nx,two\n", 400),
        ("JSONEachRow", b'{"k": 1}\n{"k": "x"}', 400),
        ("Native", b"garbage", 500),
        ("Arrow", b"garbage", 400),
        ("Nothing", b"1", 404),
        ("Values", b"(1, 'a'), (2", 400),
    ],
)
def test_rows_that_cannot_be_read_insert_nothing(
    endpoint: Endpoint, table: str, input_format: str, body: bytes, status: int
) -> None:
    answer = endpoint.query(body, query=f"INSERT INTO {table} FORMAT {input_format}")
    assert (answer.status_code // 100, answer.text[:6]) == (status // 100, "Code: "), answer.text
    assert "incoming" not in answer.text, "the answer names a file of the server"
    assert endpoint.text(f"SELECT count() FROM {table}") == "0\n"


def test_no_rows_are_left_behind_on_disk(endpoint: Endpoint, table: str) -> None:
    endpoint.query(b"1,one\nx,two\n", query=f"INSERT INTO {table} FORMAT CSV")
    endpoint.query(b"1,one\n", query=f"INSERT INTO {table} FORMAT CSV")
    incoming = endpoint.home / "data" / "clickhouse" / "incoming"
    wait_for(lambda: not list(incoming.iterdir()))


def test_an_insert_whose_client_dies_inserts_nothing(endpoint: Endpoint, table: str) -> None:
    credentials = b64encode(f"{OWNER}:{OWNER_PASSWORD}".encode()).decode()
    head = (
        f"POST /?query=INSERT%20INTO%20{table}%20FORMAT%20CSV HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Basic {credentials}\r\n"
    )
    bodies = {
        "Content-Length: 1000000\r\n\r\n": b"1,one\n" * 1000,
        "Transfer-Encoding: chunked\r\n\r\n": b"6\r\n1,one\n\r\n6\r\n2,t",
        "Transfer-Encoding: chunked\r\n\r\n ": b"6\r\n1,one\n\r\n",
    }
    failures = 'clickhouse_endpoint_failures_total{error="INCORRECT_DATA"} '

    def failed() -> float:
        text = endpoint.http.get(f"{endpoint.url}/metrics").text
        found = [line for line in text.splitlines() if line.startswith(failures)]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    for kind, body in bodies.items():
        before = failed()
        with socket.create_connection(("127.0.0.1", endpoint.port)) as client:
            client.sendall((head + kind.rstrip(" ")).encode() + body)
            client.shutdown(socket.SHUT_WR)
            wait_for(lambda before=before: failed() == before + 1)  # type: ignore[misc]
    assert endpoint.text(f"SELECT count() FROM {table}") == "0\n"


def test_the_rows_file_lies_in_the_endpoints_own_folder(endpoint: Endpoint) -> None:
    assert (endpoint.home / "data" / "clickhouse" / "incoming").is_dir()
    assert Path(endpoint.home / "data" / "clickhouse" / "engine" / "store").is_dir()
