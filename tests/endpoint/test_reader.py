"""Somebody who may only read can't write, nor reach files or the network, however it is put."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from serving.catalogue import ViewColumn, ViewInfo
from serving.query import statement
from tests.endpoint.running import READER, READER_PASSWORD, Endpoint

pytestmark = pytest.mark.stack

_WRITES = [
    "INSERT INTO {t} VALUES (1, 'x')",
    "INSERT INTO {t} FORMAT CSV\n1,x",
    "INSERT INTO {t} SELECT 1, 'x'",
    "INSERT INTO {t} SETTINGS readonly = 0 VALUES (1, 'x')",
    "INSERT INTO FUNCTION file('{f}', 'CSV', 'a UInt8') SELECT 1",
    "INSERT INTO {t} FROM INFILE '/etc/hostname' FORMAT CSV",
    'insert into {t} (k) format JSONEachRow {{"k": 1}}',
    "/* SELECT */ INSERT INTO {t} VALUES (1, 'x')",
    "-- SELECT\nINSERT INTO {t} VALUES (1, 'x')",
    "CREATE TABLE made (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE made (a UInt8)",
    "CREATE VIEW made AS SELECT 1",
    "CREATE MATERIALIZED VIEW made ENGINE = Memory AS SELECT * FROM {t}",
    "CREATE DATABASE made",
    "CREATE FUNCTION made AS (x) -> x",
    "CREATE USER made",
    "CREATE NAMED COLLECTION made AS a = 1",
    "CREATE OR REPLACE TABLE {t} (a UInt8) ENGINE = Memory",
    "GRANT ALL ON *.* TO reader",
    "ALTER TABLE {t} DELETE WHERE 1",
    "ALTER TABLE {t} UPDATE name = 'y' WHERE 1",
    "ALTER TABLE {t} MODIFY COMMENT 'x'",
    "ALTER TABLE {t} DROP PARTITION tuple()",
    "DELETE FROM {t} WHERE 1",
    "UPDATE {t} SET name = 'y' WHERE 1",
    "DROP TABLE {t}",
    "DROP DATABASE kappa",
    "TRUNCATE TABLE {t}",
    "RENAME TABLE {t} TO made",
    "EXCHANGE TABLES {t} AND {t}",
    "OPTIMIZE TABLE {t} FINAL",
    "DETACH TABLE {t}",
    "ATTACH TABLE {t}",
    "UNDROP TABLE {t}",
    "MOVE TABLE {t}",
    "BACKUP TABLE {t} TO File('{f}')",
    "RESTORE TABLE {t} FROM File('{f}')",
    "SYSTEM FLUSH LOGS",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "SET readonly = 0",
    "SET max_threads = 1",
    "SET max_execution_time = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
    "SELECT * FROM (SELECT 1 SETTINGS max_execution_time = 0) SETTINGS max_threads = 1",
    "WITH x AS (SELECT 1 settings max_memory_usage = 0) SELECT * FROM x",
    "SELECT * FROM (SELECT 1 SETTINGS `max_memory_usage` = 0)",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '/etc/hostname'",
    "SELECT * FROM (SELECT 1 SETTINGS additional_result_filter = 'file(1)')",
    "SELECT 1 FORMAT Protobuf SETTINGS output_format_schema = '{f}'",
    "SELECT 1; INSERT INTO {t} VALUES (1, 'x')",
    "SELECT 1;\n;DROP TABLE {t}",
    "SELECT ';' ; DROP TABLE {t}",
    "SELECT 1 INTO OUTFILE '{f}'",
    "SELECT 1 INTO /* */ OUTFILE '{f}' FORMAT CSV",
    "SELECT 1 INTO OUTFILE '{f}' AND STDOUT",
    "(SELECT 1) INTO OUTFILE '{f}'",
    "SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{f}'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{f}'",
    "BEGIN TRANSACTION",
    "EXECUTE AS kappa SELECT 1",
    "WITH x AS (SELECT 1) INSERT INTO {t} SELECT 1, 'x'",
    "EXPLAIN PIPELINE INSERT INTO {t} SELECT 1, 'x'",
    "PARALLEL WITH DROP TABLE {t}",
    "CHECK TABLE {t}",
    "",
    "garbage",
]

_REACHES = [
    "SELECT * FROM file('/etc/hostname', 'LineAsString')",
    "SELECT * FROM FILE('/etc/hostname', 'LineAsString')",
    "SELECT * FROM `file`('/etc/hostname', 'LineAsString')",
    "SELECT * FROM \"file\" ('/etc/hostname', 'LineAsString')",
    "SELECT * FROM/**/file/**/('/etc/hostname', 'LineAsString')",
    "SELECT file('/etc/hostname')",
    "SELECT `file`('/etc/hostname')",
    "SELECT file/* */\n('/etc/hostname')",
    "SELECT FILE('/etc/hostname')",
    "SELECT length(file('/etc/hostname', ''))",
    "SELECT arrayMap(x -> file(x), ['/etc/hostname'])",
    "SELECT 1 WHERE (SELECT file('/etc/hostname')) != ''",
    "WITH file('/etc/hostname') AS x SELECT x",
    "EXPLAIN SELECT file('/etc/hostname')",
    "EXPLAIN AST SELECT file('/etc/hostname')",
    "SELECT * APPLY(file) FROM (SELECT '/etc/hostname')",
    "SELECT * APPLY file FROM (SELECT '/etc/hostname')",
    "SELECT COLUMNS('x') APPLY `file` FROM (SELECT '/etc/hostname' AS x)",
    "SELECT COLUMNS('x') APPLY \"f\\x69le\" FROM (SELECT '/etc/hostname' AS x)",
    "SELECT t.* APPLY file FROM (SELECT '/etc/hostname') AS t",
    "SELECT arrayMap(file, ['/etc/hostname'])",
    "SELECT arrayMap(`file`, ['/etc/hostname'])",
    "SELECT arrayMap(`f\\x69le`, ['/etc/hostname'])",
    "SELECT arrayMap(/**/file/**/, ['/etc/hostname'])",
    "SELECT mapApply(file, map('/etc/hostname', 1))",
    "WITH file AS f SELECT arrayMap(f, ['/etc/hostname'])",
    "SELECT arrayMap((file), ['/etc/hostname'])",
    "SELECT arrayMap((file AS f), ['/etc/hostname'])",
    "SELECT arrayMap(((file) AS `a(`), ['/etc/hostname'])",
    "SELECT [1, length(arrayMap(file, ['/etc/hostname'])[1])]",
    "SELECT 1 WHERE (1 IN (1)) AND (arrayMap((file AS f), ['/etc/hostname']) != [])",
    "SELECT arrayMap(select, [1]), arrayMap(file, ['/etc/hostname']) FROM (SELECT 1 AS select)",
    "SELECT (SELECT arrayMap(file, ['/etc/hostname']))",
    "SELECT * FROM (SELECT '/etc/hostname' AS p) WHERE ((SELECT 1) AS one) AND file(p)",
    "SELECT * APPLY toString APPLY file FROM (SELECT '/etc/hostname')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '/etc/hostname')",
    "SELECT * APPLY(x -> arrayMap(file, [x])) FROM (SELECT '/etc/hostname')",
    "WITH (f, x) -> arrayMap(f, [x]) AS g SELECT g(file, '/etc/hostname')",
    # Here the engine itself finds no function by the alias.
    "SELECT arrayMap(f, ['/etc/hostname']), file AS f",
    "SELECT file AS f, arrayMap(f, ['/etc/hostname'])",
    "SELECT (WITH file AS f SELECT arrayMap(f, ['/etc/hostname']))",
    "WITH file AS f SELECT (SELECT arrayMap(f, ['/etc/hostname']))",
    "WITH file AS f SELECT f('/etc/hostname')",
    "WITH file AS f SELECT * APPLY f FROM (SELECT '/etc/hostname')",
    "WITH x -> file AS f SELECT arrayMap(f, ['/etc/hostname'])",
    "SELECT arrayMap(f, ['/etc/hostname']) FROM (SELECT file AS f)",
    "SELECT arrayMap(f, ['/etc/hostname']) FROM system.one WHERE file AS f",
    "SELECT arrayMap(f, ['/etc/hostname']) FROM system.one ORDER BY (file AS f, 1)",
    "SELECT arrayMap(aiGenerate, ['x'])",
    "SELECT aiGenerate('x', map('credentials', 'x'))",
    "SELECT * FROM view(SELECT arrayMap(file, ['/etc/hostname']))",
    "DESCRIBE file('/etc/hostname', 'LineAsString')",
    "DESCRIBE TABLE file('/etc/hostname', 'LineAsString')",
    "DESC url('http://127.0.0.1:1/x', 'CSV')",
    "DESCRIBE (SELECT * FROM file('/etc/hostname', 'LineAsString'))",
    "SELECT * FROM '/etc/hostname'",
    "SELECT * FROM `/etc/hostname`",
    "SELECT * FROM default.`/etc/hostname`",
    "DESCRIBE TABLE `/etc/hostname`",
    "DESCRIBE TABLE default.`/etc/hostname`",
    "SHOW CREATE TABLE default.`/etc/hostname`",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM urlCluster('c', 'http://127.0.0.1:1/', 'CSV', 'a String')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:9', 'system.one')",
    "SELECT * FROM remoteSecure('127.0.0.1:9', 'system.one')",
    "SELECT * FROM cluster('default', 'system.one')",
    "SELECT * FROM s3('http://bucket.127.0.0.1:1/key', 'CSV', 'a String')",
    "SELECT * FROM gcs('http://bucket.127.0.0.1:1/key', 'CSV', 'a String')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x', 'CSV', 'a String')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:1', 'b', 'c', 'd', 'e')",
    "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'a', 'b', 'c', 'd', 'a String')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
    "SELECT * FROM sqlite('/tmp/x.db', 't')",
    "SELECT * FROM odbc('DSN=x', 'a', 'b')",
    "SELECT * FROM jdbc('x', 'a', 'b')",
    "SELECT * FROM deltaLake('http://b.127.0.0.1:1/')",
    "SELECT * FROM icebergLocal('/tmp')",
    "SELECT * FROM fileCluster('c', '/etc/hostname', 'LineAsString')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM python('x')",
    "SELECT * FROM Python('x')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM loop(system.one) LIMIT 1",
    "SELECT * FROM view(SELECT * FROM file('/etc/hostname', 'LineAsString'))",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('/etc/hostname')))",
    "SELECT * FROM merge('default', '.*hostname.*')",
]


def _refused(answer: httpx.Response) -> bool:
    return answer.status_code >= 400 and answer.text.startswith("Code: ")


@pytest.mark.parametrize("sql", _WRITES)
def test_reader_cannot_change_anything(
    endpoint: Endpoint, table: str, tmp_path: Path, sql: str
) -> None:
    endpoint.text(f"INSERT INTO {table} VALUES (7, 'seven')")
    out = tmp_path / "out"
    answer = endpoint.query(sql.format(t=table, f=out), reader=True)
    assert _refused(answer), answer.text
    assert endpoint.text(f"SELECT * FROM {table}") == "7\tseven\n"
    assert not out.exists()
    assert endpoint.text("SHOW TABLES LIKE 'made%'") == ""


@pytest.mark.parametrize("sql", _REACHES)
def test_reader_cannot_reach_files_or_the_network(endpoint: Endpoint, sql: str) -> None:
    answer = endpoint.query(sql, reader=True)
    assert _refused(answer), answer.text
    assert Path("/etc/hostname").read_text().strip() not in answer.text.replace(sql, "")
    assert "Connection" not in answer.text, "the engine tried to connect"


def test_reader_may_call_no_table_function_but_the_harmless_ones(endpoint: Endpoint) -> None:
    names = endpoint.text("SELECT name FROM system.table_functions").split()
    allowed = []
    for name in names:
        for written in (name, f"`{name}`", name.upper()):
            answer = endpoint.query(f"SELECT * FROM {written}('x')", reader=True)
            if "Cannot use function" not in answer.text:
                allowed.append(name)
    assert sorted(set(allowed)) == [
        "SQLStandardValues",
        "dictionary",
        "format",
        "generateRandom",
        "generateSeries",
        "generate_series",
        "merge",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "viewExplain",
        "viewIfPermitted",
        "zeros",
        "zeros_mt",
    ]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT k, name FROM {t} WHERE k = 7 FORMAT TSVRaw", "7\tfile('x'); DROP\n"),
        ("WITH 7 AS wanted SELECT count() FROM {t} WHERE k = wanted", "1\n"),
        ("SELECT 'file(1)' AS `url` -- file('x')", "file(1)\n"),
        ("SHOW TABLES LIKE '{t}'", "{t}\n"),
        ("EXISTS {t}", "1\n"),
        ("SELECT sum(number) FROM numbers(10)", "45\n"),
        ("SELECT * FROM values('a UInt8', 1, 2)", "1\n2\n"),
        ("DESCRIBE TABLE {t}", "k\tUInt64\t\t\t\t\t\nname\tString\t\t\t\t\t\n"),
        ("EXPLAIN SYNTAX SELECT 1", "SELECT 1\\nFROM system.one\n"),
        (
            "SELECT readonly FROM (SELECT 1 AS readonly) WHERE readonly = 1",
            "1\n",
        ),
        ("(SELECT 1) UNION ALL (SELECT 1)", "1\n1\n"),
        ("SELECT 1;", "1\n"),
        ("SELECT getSetting('readonly')", "1\n"),
        ("SELECT tupleElement((1, 2), 1), format('{{}}', 'a')", "1\ta\n"),
        ("SELECT s.file FROM (SELECT * FROM values('file UInt8, url UInt8', (1, 2))) AS s", "1\n"),
        ("SELECT url FROM values('file UInt8, url UInt8', (1, 2))", "2\n"),
        ("SELECT COLUMNS('^file$') FROM values('file UInt8, url UInt8', (1, 2))", "1\n"),
        ("SELECT 'file' = 'file'", "1\n"),
        ("SELECT * APPLY toString FROM (SELECT 1)", "1\n"),
        ("SELECT 1 AS file, 2 AS `FILE`", "1\t2\n"),
        ("SELECT length('ab' AS file)", "2\n"),
        ("WITH file AS (SELECT 3 AS k) SELECT k FROM file", "3\n"),
        ("SELECT file FROM {c} WHERE file = 1 AND (file, k) >= (1, 2) ORDER BY file", "1\n"),
        ("SELECT DISTINCT (file, [k]) FROM {c} WHERE file IN (SELECT file FROM {c})", "(1,[2])\n"),
        ("SELECT k FROM {c} WHERE NOT (file = 2 OR k = 3) GROUP BY file, k", "2\n"),
        ("SELECT toString(c.file), count(DISTINCT c.file) FROM {c} AS c GROUP BY ALL", "1\t1\n"),
    ],
)
def test_reader_can_ask(endpoint: Endpoint, table: str, sql: str, rows: str) -> None:
    endpoint.query(
        f'INSERT INTO {table} FORMAT JSONEachRow {{"k": 7, "name": "file(\'x\'); DROP"}}'
    )
    asked = sql.format(t=table, c="(SELECT * FROM values('file UInt8, k UInt8', (1, 2)))")
    assert endpoint.text(asked, reader=True) == rows.format(t=table)


@pytest.mark.parametrize("kind", ["String", "Nullable(String)", "Float64", "Nullable(Float64)"])
def test_a_reader_pages_through_a_view_whose_column_is_named_like_a_function(
    endpoint: Endpoint, kind: str
) -> None:
    name = f"files_{re.sub('[()]', '', kind).lower()}"
    endpoint.text(f"CREATE TABLE {name} (file {kind}, k UInt8) ENGINE = MergeTree ORDER BY k")
    endpoint.text(f"INSERT INTO {name} VALUES ('1', 1), ('2', 2), ('3', 3)")
    columns = (ViewColumn("file", kind), ViewColumn("k", "UInt8"))
    view = ViewInfo(name, "", 1, (1,), name, ("k", "file"), columns, 0)
    asked, pages = [("order", "-file"), ("limit", "1"), ("file", "1"), ("file", "2")], []
    for _ in range(2):
        page = statement("kappa", view, asked)
        bound = {f"param_{name}": value for name, value in page.parameters.items()}
        answer = endpoint.text(f"{page.sql} FORMAT JSONEachRow", reader=True, **bound)
        first = json.loads(answer.splitlines()[0])
        asked = [*asked[:4], ("cursor", page.next_cursor(first))]
        pages.append(first["k"])
    assert pages == [2, 1]


def test_a_parameter_may_be_named_like_a_function(endpoint: Endpoint) -> None:
    sql = "SELECT {file:String}, upper({file:String})"
    assert endpoint.text(sql, reader=True, param_file="a") == "a\tA\n"


@pytest.mark.parametrize(
    "parameters",
    [
        {"readonly": "0"},
        {"readonly": "3"},
        {"allow_ddl": "1"},
        {"dialect": "kusto"},
        {"implicit_select": "1"},
        {"allow_introspection_functions": "1"},
        {"max_threads = 1, readonly": "0"},
    ],
)
def test_reader_cannot_send_a_setting_that_frees(
    endpoint: Endpoint, parameters: dict[str, str]
) -> None:
    assert _refused(endpoint.query("SELECT 1", reader=True, **parameters))


@pytest.mark.parametrize(
    "parameters",
    [
        {"additional_result_filter": "file('/etc/hostname') = 'x'"},
        {"additional_table_filters": "{'system.one': 'file(''/etc/hostname'') = 1'}"},
        {"default_format": "Template", "format_template_row": "/etc/hostname"},
        {"default_format": "Template", "format_template_resultset": "/etc/hostname"},
        {"default_format": "Protobuf", "format_schema": "/etc/hostname:X"},
        {"default_format": "Protobuf", "output_format_schema": "{f}"},
        {"input_format_record_errors_file_path": "{f}"},
        {"max_untracked_memory": "1000000000000"},
        {"compile_expressions": "0"},
        {"nothing": "1"},
    ],
)
def test_reader_sends_no_setting_but_the_harmless_ones(
    endpoint: Endpoint, tmp_path: Path, parameters: dict[str, str]
) -> None:
    out = tmp_path / "out"
    given = {name: value.replace("{f}", str(out)) for name, value in parameters.items()}
    answer = endpoint.query("SELECT dummy FROM system.one", reader=True, **given)
    *_, name = given
    assert _refused(answer)
    assert f"Cannot modify '{name}' setting in readonly mode." in answer.text
    assert not out.exists()


def test_reader_sends_what_shapes_an_answer_and_what_drivers_send(endpoint: Endpoint) -> None:
    given = {
        "async_insert": "0",
        "date_time_input_format": "best_effort",
        "date_time_output_format": "iso",
        "extremes": "0",
        "final": "1",
        "join_use_nulls": "1",
        "max_result_rows": "1",
        "result_overflow_mode": "break",
        "max_block_size": "1",
        "output_format_arrow_string_as_string": "1",
        "output_format_json_quote_64bit_integers": "0",
        "session_timezone": "Asia/Tokyo",
        "cancel_http_readonly_queries_on_client_close": "1",
        "send_progress_in_http_headers": "1",
        "http_headers_progress_interval_ms": "1000",
        "log_comment": "a dashboard",
        "readonly": "2",
    }
    sql = "SELECT toDateTime(number) AS at FROM numbers(9) FORMAT JSONEachRow"
    assert endpoint.text(sql, reader=True, **given) == '{"at":"1970-01-01T00:00:00Z"}\n'


def test_reader_lowers_limits_and_cannot_raise_them(endpoint: Endpoint) -> None:
    sql = "SELECT getSetting('max_execution_time'), getSetting('max_memory_usage')"
    default = endpoint.text(sql, reader=True)
    assert default == f"60\t{4096 * 1024 * 1024}\n"
    raised = {"max_execution_time": "0", "max_memory_usage": str(1 << 50)}
    assert endpoint.text(sql, reader=True, **raised) == default
    for least in ("0.0000001", "1e-9", "-1", "1e99", "nan", ""):
        assert endpoint.text(sql, reader=True, max_execution_time=least) == default
    assert endpoint.text(sql, reader=True, max_execution_time="5").startswith("5\t")
    assert endpoint.text("SELECT getSetting('max_threads')", reader=True, max_threads="1") == "1\n"


def test_a_session_does_not_free_the_reader(endpoint: Endpoint, table: str) -> None:
    session = {"session_id": "s", "session_timeout": "60"}
    endpoint.text("SET max_threads = 1", **session)
    for sql in (
        "SET readonly = 0",
        f"INSERT INTO {table} VALUES (1, 'x')",
        "CREATE TEMPORARY TABLE x (a Int8)",
    ):
        assert _refused(endpoint.query(sql, reader=True, **session))
    assert endpoint.text("SELECT getSetting('readonly')", reader=True, **session) == "1\n"


def test_an_allowed_statement_reaches_no_further_by_its_parameters(
    endpoint: Endpoint, table: str
) -> None:
    sql = "SELECT count() FROM {place:Identifier}"
    assert endpoint.text(sql, reader=True, param_place=table) == "0\n"
    assert _refused(endpoint.query(sql, reader=True, param_place="/etc/hostname"))
    assert _refused(endpoint.query(sql, reader=True, param_place="file('/etc/hostname')"))


def test_a_parameter_names_no_function_that_reads_files(endpoint: Endpoint) -> None:
    sql = "SELECT arrayMap({f:Identifier}, [{p:String}])"
    path = {"param_p": "/etc/hostname"}
    assert endpoint.text(sql, reader=True, param_f="upper", **path) == "['/ETC/HOSTNAME']\n"
    # Also not of the statement that was allowed a moment ago.
    for name in ("file", "FILE", "`file`", "f\\x69le", " file", "file\0"):
        assert _refused(endpoint.query(sql, reader=True, param_f=name, **path)), name
    kind = "SELECT {kind:String} = 'file'"
    assert endpoint.text(kind, reader=True, param_kind="file") == "1\n"


def test_readers_statements_are_short_and_the_owners_may_be_long(endpoint: Endpoint) -> None:
    long, short = (f"SELECT length([{','.join('1' * n)}])" for n in (200_000, 100_000))
    given = {"max_query_size": "1000000"}
    answer = endpoint.query(long, reader=True, **given)
    assert (answer.status_code, answer.text[:10]) == (413, "Code: 223.")
    form = {"query": (None, long)}
    auth = (READER, READER_PASSWORD)
    answer = endpoint.http.post(endpoint.url, params=given, files=form, auth=auth)
    assert (answer.status_code, answer.text[:10]) == (413, "Code: 223.")
    assert endpoint.text(long, **given) == "200000\n"
    assert endpoint.text(short, reader=True) == "100000\n"


def test_statements_that_are_no_text_are_refused(endpoint: Endpoint) -> None:
    assert _refused(endpoint.query(b"SELECT '\xff'", reader=True))
    assert _refused(endpoint.query(b"SELECT 1 \0 FROM file('/etc/hostname')", reader=True))


def test_a_parameter_named_in_the_url_is_the_same_statement(endpoint: Endpoint, table: str) -> None:
    url = {"query": f"INSERT INTO {table}"}
    assert _refused(endpoint.query("VALUES (1, 'x')", reader=True, **url))
    auth = (READER, READER_PASSWORD)
    for sql in (f"DROP TABLE {table}", "SELECT file('/etc/hostname')"):
        answer = endpoint.http.get(endpoint.url, params={"query": sql}, auth=auth)
        assert _refused(answer)
    assert endpoint.text(f"SELECT count() FROM {table}", reader=True) == "0\n"
