"""What the transport reads of a statement."""

from __future__ import annotations

import pytest

from deploy.clickhouse_endpoint.statement import Statement, parse
from tests.costs import cost


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (b"SELECT 1", Statement("SELECT")),
        (b"  -- INSERT\n /* DROP */ # x\nselect 1", Statement("SELECT")),
        (b"((SELECT 1) UNION ALL (SELECT 2))", Statement("SELECT")),
        (b"SELECT 1 FORMAT JSON", Statement("SELECT", format="JSON")),
        (b"SELECT 1 format CSV SETTINGS max_threads = 1;", Statement("SELECT", format="CSV")),
        (b"SELECT 'FORMAT CSV'", Statement("SELECT")),
        (b"SELECT 1 -- FORMAT CSV", Statement("SELECT")),
        (b"SELECT format('{}', 1)", Statement("SELECT")),
        (b"SELECT (SELECT 1 FORMAT CSV)", Statement("SELECT")),
        (b"SELECT 1;", Statement("SELECT")),
        (b"SELECT 1;;  -- end\n;", Statement("SELECT")),
        (b"SELECT 1; SELECT 2", Statement("SELECT", several=True)),
        (b"SELECT 'a;b', `c;d`, \"e;f\", $x$ ; $x$ /* ; */", Statement("SELECT")),
        (b"SELECT 'it\\'s; ', 'it''s; '", Statement("SELECT")),
        (b"SELECT 1 INTO OUTFILE 'x'", Statement("SELECT", file=True)),
        (b"SELECT 'INTO OUTFILE'", Statement("SELECT")),
        (b"INSERT INTO t SELECT 1; DROP TABLE t", Statement("INSERT", several=True)),
        (b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", Statement("INSERT", file=True)),
        (b"INSERT INTO t", Statement("INSERT")),
        (b"", Statement("")),
        (b" -- nothing", Statement("")),
        (b"1 + 1", Statement("")),
    ],
)
def test_a_statement_is_known_by_its_first_word(sql: bytes, expected: Statement) -> None:
    assert parse(sql) == expected


@pytest.mark.parametrize(
    ("sql", "rows", "read_from_file"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", b"1,2\n", b"INSERT INTO t  F  FORMAT CSV"),
        (b"INSERT INTO t FORMAT CSV  1,2", b"1,2", b"INSERT INTO t  F  FORMAT CSV"),
        (b"INSERT INTO t FORMAT TSV\n\t2", b"\t2", b"INSERT INTO t  F  FORMAT TSV"),
        (b"INSERT INTO t FORMAT TSV\n\n2", b"\n2", b"INSERT INTO t  F  FORMAT TSV"),
        (b"INSERT INTO t FORMAT TSV \r\n2", b"2", b"INSERT INTO t  F  FORMAT TSV"),
        (b"insert into t(a) values (1)", b" (1)", b"insert into t(a)  F  FORMAT Values"),
        (
            b"INSERT INTO `d;b`.values (format) FORMAT Native\n\0VALUES",
            b"\0VALUES",
            b"INSERT INTO `d;b`.values (format)  F  FORMAT Native",
        ),
        (
            b"INSERT INTO TABLE t (a, b) SETTINGS async_insert = 0 FORMAT CSV\n1",
            b"1",
            b"INSERT INTO TABLE t (a, b)  F SETTINGS async_insert = 0  FORMAT CSV",
        ),
        (
            b"INSERT INTO FUNCTION null('a Int8') VALUES (1)",
            b" (1)",
            b"INSERT INTO FUNCTION null('a Int8')  F  FORMAT Values",
        ),
        (
            b"INSERT INTO t VALUES ('; SELECT')",
            b" ('; SELECT')",
            b"INSERT INTO t  F  FORMAT Values",
        ),
    ],
)
def test_rows_of_an_insert_are_found(sql: bytes, rows: bytes, read_from_file: bytes) -> None:
    found = parse(sql).rows
    assert found is not None
    assert sql[found.start :] == rows
    clause = b" FROM INFILE 'x' COMPRESSION 'none' "
    assert found.from_file(sql, "'x'") == read_from_file.replace(b" F ", clause)


@pytest.mark.parametrize(
    "opening", [b"'", b"`", b'"', b"/*", b"$a$", b"$$", b"$1$2$3", b"''", b"(["]
)
def test_text_that_never_ends_costs_no_more_than_its_length(opening: bytes) -> None:
    small, large = (b"SELECT " + opening * count for count in (10_000, 80_000))
    # Eight times as long: were each opening read to the end, it would cost 64 times as much.
    assert cost(lambda: parse(large)) < 24 * max(cost(lambda: parse(small)), 0.01)
