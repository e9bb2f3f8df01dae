"""The HTTP interface as curl and other plain clients meet it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import lz4.frame
import pytest
from backports import zstd

from deploy.clickhouse_endpoint import blocks
from tests.endpoint.running import OWNER, OWNER_PASSWORD, READER, READER_PASSWORD, Endpoint

pytestmark = pytest.mark.stack


def curl(*arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "--max-time", "60", *arguments],
        input=stdin,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def test_curl_queries_with_a_password(endpoint: Endpoint) -> None:
    password = f"{OWNER}:{OWNER_PASSWORD}"
    assert curl("-u", password, endpoint.url, "-d", "SELECT 1 + 1") == "2\n"
    assert curl("-u", password, endpoint.url, "--data-binary", "@-", stdin=b"SELECT 3") == "3\n"
    asked = ("-G", endpoint.url, "--data-urlencode", "query=SELECT 'ä', 2 FORMAT CSV")
    assert curl("-u", password, *asked) == '"ä",2\n'
    named = ("-H", f"X-ClickHouse-User: {READER}", "-H", f"X-ClickHouse-Key: {READER_PASSWORD}")
    assert curl(*named, endpoint.url, "-d", "SELECT 4") == "4\n"
    given = ("--data-urlencode", f"user={OWNER}", "--data-urlencode", f"password={OWNER_PASSWORD}")
    assert curl("-G", endpoint.url, *given, "--data-urlencode", "query=SELECT 5") == "5\n"


def test_curl_inserts_a_long_body_that_it_announces_first(endpoint: Endpoint, table: str) -> None:
    rows = b"".join(b"%d,n%d\n" % (k, k) for k in range(300_000))
    url = f"{endpoint.url}/?query=INSERT%20INTO%20{table}%20FORMAT%20CSV"
    answer = curl("-u", f"{OWNER}:{OWNER_PASSWORD}", url, "--data-binary", "@-", stdin=rows)
    assert answer == ""
    chunked = ("-H", "Transfer-Encoding: chunked", "-T", "-", "-X", "POST")
    assert curl("-u", f"{OWNER}:{OWNER_PASSWORD}", url, *chunked, stdin=rows) == ""
    assert endpoint.text(f"SELECT count(), uniqExact(k) FROM {table}") == "600000\t300000\n"


@pytest.mark.parametrize(
    ("name", "password"),
    [(OWNER, "wrong"), (OWNER, ""), (READER, OWNER_PASSWORD), ("default", ""), ("nobody", "x")],
)
def test_a_wrong_password_is_refused(endpoint: Endpoint, name: str, password: str) -> None:
    expected = (
        f"Code: 516. DB::Exception: {name}: Authentication failed: password is incorrect, or "
        "there is no user with such name. (AUTHENTICATION_FAILED)"
    )
    by_basic: dict[str, Any] = {"auth": (name, password)}
    by_header = {"headers": {"X-ClickHouse-User": name, "X-ClickHouse-Key": password}}
    by_parameter = {"params": {"user": name, "password": password}}
    for how in (by_basic, by_header, by_parameter):
        answer = endpoint.http.post(endpoint.url, content="SELECT 1", **how)
        assert answer.status_code == 403
        assert answer.headers["X-ClickHouse-Exception-Code"] == "516"
        assert answer.text.startswith(expected)


def test_no_password_is_no_entry(endpoint: Endpoint) -> None:
    assert endpoint.http.post(endpoint.url, content="SELECT 1").status_code == 403
    answer = endpoint.http.get(endpoint.url, params={"query": "SELECT 1"})
    assert answer.status_code == 403


def test_paths_and_methods(endpoint: Endpoint) -> None:
    def ask(method: str, path: str) -> tuple[int, str]:
        answer = endpoint.http.request(method, endpoint.url + path)
        return answer.status_code, answer.text

    assert ask("GET", "/ping") == (200, "Ok.\n")
    assert ask("GET", "/replicas_status") == (200, "Ok.\n")
    assert ask("GET", "/") == (200, "Ok.\n")
    assert ask("GET", "/nothing") == (404, "There is no handle /nothing\n")
    assert ask("HEAD", "/") == (404, "")
    assert ask("PUT", "/")[0] == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://example.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "example.org"}, 421),
        ({"Host": "example.org", "Origin": "http://example.org"}, 421),
        ({"Host": "127.0.0.1.example.org"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost"}, 200),
        ({"Host": "Clickhouse.example.org:8123"}, 200),
        ({"Host": "other.example.org"}, 200),
        ({"Host": "[::1]:8123"}, 200),
        ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused_whatever_password_they_know(
    endpoint: Endpoint, table: str, headers: dict[str, str], status: int
) -> None:
    known = {"user": OWNER, "password": OWNER_PASSWORD}
    insert = f"INSERT INTO {table} VALUES (1, 'x')"
    post = endpoint.http.post(endpoint.url, content=insert, params=known, headers=headers)
    asked = {**known, "query": "SELECT 1"}
    got = endpoint.http.get(endpoint.url, params=asked, headers=headers)
    assert (post.status_code, got.status_code) == (status, status)
    assert endpoint.text(f"SELECT count() FROM {table}") == f"{int(status == 200)}\n"
    assert ("KAPPA_CLICKHOUSE_NAMES" in post.text) is (status == 421)


def test_nothing_of_a_request_becomes_a_header_of_its_own(endpoint: Endpoint) -> None:
    for query_id in ("a\r\nX-Injected: 1", "a\nX-Injected: 1", "ä", "a b", "x" * 129):
        answer = endpoint.query("SELECT 1", query_id=query_id)
        assert answer.text == "1\n"
        assert "X-Injected" not in answer.headers
        assert len(answer.headers["X-ClickHouse-Query-Id"]) == 36
    mine = endpoint.query("SELECT 1", query_id="x" * 128)
    assert mine.headers["X-ClickHouse-Query-Id"] == "x" * 128
    answer = endpoint.query("USE kappa", default_format="CSV\r\nX-Injected: 1")
    assert answer.headers["X-ClickHouse-Exception-Code"] == "73"
    assert "X-Injected" not in answer.headers


@pytest.mark.parametrize(
    ("sql", "status", "code", "name"),
    [
        ("SELEKT 1", 400, 62, "SYNTAX_ERROR"),
        ("", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("1 + 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT * FROM nothing", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT noSuchFunction()", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT * FROM nothing.t", 404, 81, "UNKNOWN_DATABASE"),
        ("SELECT 1 FORMAT Nothing", 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT 1 SETTINGS nothing = 1", 404, 115, "UNKNOWN_SETTING"),
        ("SELECT {x:UInt8}", 500, 456, "UNKNOWN_QUERY_PARAMETER"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT toUInt8('x')", 400, 6, "CANNOT_PARSE_TEXT"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 501, 48, "NOT_IMPLEMENTED"),
        ("SELECT sleep(3) SETTINGS max_execution_time = 0.2", 408, 159, "TIMEOUT_EXCEEDED"),
    ],
)
def test_errors_are_printed_as_clickhouse_does(
    endpoint: Endpoint, sql: str, status: int, code: int, name: str
) -> None:
    for parameters in ({}, {"wait_end_of_query": "1"}, {"default_format": "JSON"}):
        answer = endpoint.query(sql, **parameters)
        assert answer.text.startswith(f"Code: {code}. DB::Exception: "), answer.text
        version = endpoint.text("SELECT version()").strip()
        assert answer.text.endswith(f" ({name}) (version {version})\n")
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (
            status,
            str(code),
        )


def test_an_unknown_database_or_setting_in_the_url_is_an_error(endpoint: Endpoint) -> None:
    assert endpoint.query("SELECT 1", database="nothing").status_code == 404
    answer = endpoint.query("SELECT 1", no_such_setting="1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (404, "115")
    assert endpoint.text("SELECT 1") == "1\n"


def test_headers_tell_format_query_zone_and_counts(endpoint: Endpoint) -> None:
    answer = endpoint.query(
        "SELECT number FROM numbers(5) FORMAT JSONCompact", query_id="mine", wait_end_of_query=1
    )
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "JSONCompact"
    assert answer.headers["X-ClickHouse-Timezone"] == "UTC"
    assert answer.headers["X-ClickHouse-Server-Display-Name"] == "kappa-views"
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["read_rows"] == "5"
    assert answer.json()["data"] == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        ("TabSeparated", "1\ta\\'b\n2\t\\N\n"),
        ("TabSeparatedWithNames", "k\tn\n1\ta\\'b\n2\t\\N\n"),
        ("CSV", '1,"a\'b"\n2,\\N\n'),
        ("CSVWithNames", '"k","n"\n1,"a\'b"\n2,\\N\n'),
        ("JSONEachRow", '{"k":1,"n":"a\'b"}\n{"k":2,"n":null}\n'),
        ("JSONCompactEachRow", '[1, "a\'b"]\n[2, null]\n'),
        ("Values", "(1,'a\\'b'),(2,NULL)"),
        ("RowBinary", "\x01\x00\x03a'b\x02\x01"),
    ],
)
def test_formats(endpoint: Endpoint, output_format: str, expected: str) -> None:
    sql = "SELECT * FROM values('k UInt8, n Nullable(String)', (1, 'a\\'b'), (2, NULL))"
    for parameters in ({}, {"wait_end_of_query": "1"}):
        assert endpoint.text(f"{sql} FORMAT {output_format}", **parameters) == expected
        assert endpoint.text(sql, default_format=output_format, **parameters) == expected
    auth = (OWNER, OWNER_PASSWORD)
    headers = {"X-ClickHouse-Format": output_format}
    answer = endpoint.http.post(endpoint.url, content=sql, headers=headers, auth=auth)
    assert answer.text == expected


def test_query_and_body_are_joined_by_a_line_end(endpoint: Endpoint, table: str) -> None:
    endpoint.text("FORMAT CSV\n1,one\n", query=f"INSERT INTO {table}")
    endpoint.text("2,two\n", query=f"INSERT INTO {table} FORMAT CSV")
    endpoint.text("(3, 'three')", query=f"INSERT INTO {table} VALUES")
    endpoint.text(f"{table} ORDER BY k", query="SELECT * FROM")
    assert endpoint.text(f"{table} ORDER BY k", query="SELECT * FROM -- a comment") == (
        "1\tone\n2\ttwo\n3\tthree\n"
    )


_TRICKY = [
    "it's",
    'say "x"',
    "back\\slash",
    "tab\tand\nline",
    "{x:String}",
    "'; DROP TABLE t",
    "ä€😀",
    "",
]


@pytest.mark.parametrize("value", _TRICKY)
def test_parameters_are_bound_and_never_pasted(endpoint: Endpoint, value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")
    for reader in (False, True):
        answer = endpoint.query(
            "SELECT {x:String} AS x, length({x:String}) AS n FORMAT JSONEachRow",
            reader=reader,
            param_x=escaped,
            output_format_json_quote_64bit_integers="0",
        )
        assert answer.json() == {"x": value, "n": len(value.encode())}


def test_parameters_have_types_and_do_not_outlive_their_request(endpoint: Endpoint) -> None:
    sql = "SELECT {n:UInt64} + 1, {a:Array(String)}, {d:DateTime('UTC')}, {t:Identifier} "
    sql += "FROM (SELECT 7 AS c)"
    given = {"param_n": "41", "param_a": "['x','y\\'']", "param_d": "2015-05-17 10:05:00"}
    text = endpoint.text(sql, **given, param_t="c")
    assert text == "42\t['x','y\\'']\t2015-05-17 10:05:00\t7\n"
    assert endpoint.query("SELECT {n:UInt64}").status_code == 500
    assert endpoint.query("SELECT {n:UInt64}", param_n="x").status_code == 500


def test_long_parameters_come_in_a_form(endpoint: Endpoint) -> None:
    long = "x" * 200_000
    answer = endpoint.http.post(
        endpoint.url,
        files={"query": (None, "SELECT length({s:String})"), "param_s": (None, long)},
        auth=(READER, READER_PASSWORD),
    )
    assert answer.text == "200000\n"


def test_settings_of_a_request_do_not_outlive_it(endpoint: Endpoint) -> None:
    sql = "SELECT getSetting('max_threads'), getSetting('max_block_size')"
    assert endpoint.text(sql, max_threads=7, max_block_size=11) == "7\t11\n"
    assert endpoint.text(sql).split("\t")[0] != "7"
    assert endpoint.text("SELECT currentDatabase()", database="system") == "system\n"
    assert endpoint.text("SELECT currentDatabase()") == "kappa\n"
    assert endpoint.query("SELECT * FROM numbers(9)", max_result_rows="3").status_code == 500


def test_a_session_keeps_its_settings_and_temporary_tables(endpoint: Endpoint) -> None:
    mine, other = {"session_id": "mine"}, {"session_id": "other"}
    endpoint.text("SET max_block_size = 123", **mine)
    endpoint.text("CREATE TEMPORARY TABLE kept (a UInt8)", **mine)
    endpoint.text("INSERT INTO kept VALUES (5)", **mine)
    sql = "SELECT getSetting('max_block_size')"
    assert endpoint.text(sql, **mine, max_block_size="77") == "77\n"
    assert endpoint.text(sql, **mine) == "123\n"
    endpoint.text("SET max_block_size = 124", **mine, max_block_size="77")
    assert endpoint.text(sql, **mine) == "124\n"
    assert endpoint.text("SELECT a FROM kept", **mine) == "5\n"
    assert endpoint.text(sql, **other) not in ("77\n", "123\n", "124\n")
    assert endpoint.query("SELECT a FROM kept", **other).status_code == 404
    endpoint.text("USE system", **mine)
    assert endpoint.text("SELECT currentDatabase()", **mine) == "system\n"
    missing = endpoint.query("SELECT 1", session_id="none", session_check="1")
    assert missing.headers["X-ClickHouse-Exception-Code"] == "372"


def test_get_only_reads(endpoint: Endpoint, table: str) -> None:
    auth = (OWNER, OWNER_PASSWORD)
    for sql in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}", "SET max_threads=1"):
        answer = endpoint.http.get(endpoint.url, params={"query": sql}, auth=auth)
        assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
    asked = {"query": f"SELECT count() FROM {table}"}
    assert endpoint.http.get(endpoint.url, params=asked, auth=auth).text == "0\n"


def test_the_owner_can_ask_for_readonly(endpoint: Endpoint, table: str) -> None:
    for level in ("1", "2"):
        for sql in (f"INSERT INTO {table} VALUES (1, 'x')", f"DROP TABLE {table}"):
            answer = endpoint.query(sql, readonly=level, session_id="x")
            assert answer.headers["X-ClickHouse-Exception-Code"] == "164"
    assert endpoint.text(f"SELECT count() FROM {table}", readonly="2") == "0\n"


@pytest.mark.parametrize("rows", [1, 500_000])
@pytest.mark.parametrize("waits", [{}, {"wait_end_of_query": "1"}])
def test_answers_are_compressed_as_asked(
    endpoint: Endpoint, rows: int, waits: dict[str, str]
) -> None:
    sql = f"SELECT number FROM numbers({rows})"
    expected = endpoint.text(sql).encode()
    auth = (OWNER, OWNER_PASSWORD)

    def ask(accepted: str, **parameters: str) -> tuple[str | None, bytes]:
        with endpoint.http.stream(
            "POST",
            endpoint.url,
            content=sql,
            params={**waits, **parameters},
            headers={"Accept-Encoding": accepted},
            auth=auth,
        ) as answer:
            return answer.headers.get("Content-Encoding"), b"".join(answer.iter_raw())

    assert ask("gzip") == (None, expected)
    encoding, body = ask("lz4", enable_http_compression="1")
    assert (encoding, lz4.frame.decompress(body)) == ("lz4", expected)
    encoding, body = ask("zstd", enable_http_compression="1")
    assert (encoding, zstd.decompress(body)) == ("zstd", expected)
    encoding, body = ask("identity", compress="1")
    assert encoding is None
    assert body[16] == 0x82


def test_a_query_that_fails_amid_its_answer_breaks_it_off(endpoint: Endpoint) -> None:
    sql = "SELECT throwIf(number = 1000000) FROM numbers(2000000) SETTINGS max_block_size = 10000"
    done = subprocess.run(
        [
            "curl",
            "-sS",
            "--noproxy",
            "*",
            "-u",
            f"{OWNER}:{OWNER_PASSWORD}",
            endpoint.url,
            "-d",
            sql,
        ],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 18, "curl takes the answer for a whole one"
    assert done.stdout.startswith(b"0\n0\n")
    assert b"__exception__\r\n" in done.stdout
    assert b"Code: 395. DB::Exception: " in done.stdout
    assert endpoint.text("SELECT 1") == "1\n"


def test_what_a_failed_query_wrote_is_in_no_later_answer(endpoint: Endpoint) -> None:
    fails = "SELECT throwIf(number = 100000) FROM numbers(200000) SETTINGS max_block_size = 100"
    for who in ({}, {"session_id": "failing"}, {"reader": True}):
        parameters: dict[str, Any] = {**who, "wait_end_of_query": "1"}
        for later in ("SELECT 1", "SELECT 1 FORMAT CSV"):
            assert endpoint.query(fails, **parameters).status_code == 500
            assert endpoint.text(later, **parameters) == "1\n"


def test_a_native_compressed_insert(endpoint: Endpoint, table: str) -> None:
    body = b"".join(blocks.compress(iter([b"1,one\n", b"2,two\n"])))
    endpoint.text(body, query=f"INSERT INTO {table} FORMAT CSV", decompress="1")
    assert endpoint.text(f"SELECT * FROM {table} ORDER BY k") == "1\tone\n2\ttwo\n"


def test_metrics_count_queries_failures_and_rows(endpoint: Endpoint, table: str) -> None:
    def values() -> dict[str, float]:
        lines = endpoint.http.get(f"{endpoint.url}/metrics").text.splitlines()
        return {
            line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in lines
            if not line.startswith("#")
        }

    before = values()
    endpoint.text(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    endpoint.text(f"INSERT INTO {table} SELECT 3, 'c'")
    endpoint.text("SELECT 1")
    endpoint.query("SELECT * FROM nothing")
    after = values()

    def grown(name: str) -> float:
        return after[f"clickhouse_endpoint_{name}"] - before.get(f"clickhouse_endpoint_{name}", 0)

    assert grown("inserted_rows_total") == 3
    assert grown('queries_total{kind="select"}') == 2
    assert grown('queries_total{kind="insert"}') == 2
    assert grown('failures_total{error="UNKNOWN_TABLE"}') == 1
    assert grown('query_seconds_count{kind="select"}') == 2
    assert after["process_resident_memory_bytes"] > 100e6
