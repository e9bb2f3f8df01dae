"""The query API over the real endpoint: exact rows, pages, formats and refusals."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import random
from typing import Any

import pyarrow as pa
import pytest

from serving.catalogue import ViewColumn, ViewInfo
from serving.errors import ApiError
from serving.query import statement
from tests.harness import wait_for
from tests.serving.site import NOON, Database, Row, Server, minute

COUNTS = {"page_id": "string", "window_start": "time", "views": "long", "mean": "double?"}
KEY = ("window_start", "page_id")
HOSTILE = [
    "/'; DROP TABLE x --",
    "/\\' OR 1=1 -- \\",
    '/"><img src=x onerror=alert(1)>',
    "/{p0:String}%s%(a)s?&=#+ä→🙂",
    "/tab\tand\nline\rend",
    "",
]


def row(page: str, at: int, views: int, mean: float | None = None) -> Row:
    return {"page_id": page, "window_start": minute(at), "views": views, "mean": mean}


def as_json(one: Row) -> Row:
    text = one["window_start"].strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {**one, "window_start": text}


def rows_of(server: Server, view: str, **parameters: Any) -> list[Row]:
    found: list[Row] = server.json(f"/api/views/{view}", **parameters)["rows"]
    return found


def all_pages(server: Server, view: str, **parameters: Any) -> list[Row]:
    """Return the rows of all pages, one after the other."""
    rows: list[Row] = []
    cursor: dict[str, str] = {}
    while True:
        page = server.json(f"/api/views/{view}", **parameters, **cursor)
        assert len(page["rows"]) <= int(parameters["limit"])
        rows += page["rows"]
        if page["next"] is None:
            return rows
        cursor = {"cursor": page["next"]}


@pytest.fixture(scope="module")
def counts(database: Database) -> list[Row]:
    """Rows of view `counts`: three pages in four minutes, newest first as the API has them."""
    made = [row(page, at, 10 * at + len(page)) for at in range(4) for page in ("/a", "/b/c", "/d")]
    database.view("counts", COUNTS, KEY, made)
    return sorted(made, key=lambda one: (one["window_start"], one["page_id"]), reverse=True)


def test_a_view_is_listed_with_key_columns_and_version(server: Server, counts: list[Row]) -> None:
    def shown() -> dict[str, Any]:
        views = server.json("/api/views")["views"]
        return next((view for view in views if view["name"] == "counts"), {})

    # What the server knows of its tables may be a second old.
    view = wait_for(shown, 10, "the rows are counted", until=lambda v: v.get("stored_rows", 0) > 0)
    assert view == {
        "name": "counts",
        "description": "About counts.",
        "version": 1,
        "versions": [1],
        "key": ["window_start", "page_id"],
        "time": "window_start",
        "stored_rows": 12,
        "columns": [
            {"name": "page_id", "type": "String", "nullable": False, "description": ""},
            {
                "name": "window_start",
                "type": "DateTime64(3, 'UTC')",
                "nullable": False,
                "description": "",
            },
            {"name": "views", "type": "Int64", "nullable": False, "description": ""},
            {"name": "mean", "type": "Float64", "nullable": True, "description": ""},
        ],
    }


def test_rows_come_newest_first(server: Server, counts: list[Row]) -> None:
    assert rows_of(server, "counts") == [as_json(one) for one in counts]


def test_a_key_column_filters(server: Server, counts: list[Row]) -> None:
    wanted = [as_json(one) for one in counts if one["page_id"] == "/b/c"]
    assert rows_of(server, "counts", page_id="/b/c") == wanted


def test_a_key_column_given_twice_means_either(server: Server, counts: list[Row]) -> None:
    wanted = [as_json(one) for one in counts if one["page_id"] in ("/a", "/d")]
    assert rows_of(server, "counts", page_id=["/a", "/d"]) == wanted


def test_a_range_holds_its_start_and_not_its_end(server: Server, counts: list[Row]) -> None:
    wanted = [as_json(one) for one in counts if minute(1) <= one["window_start"] < minute(3)]
    millis = round(minute(3).timestamp() * 1000)
    parameters = {"from": "2024-05-01T14:01:00+02:00", "to": str(millis)}
    assert rows_of(server, "counts", **parameters) == wanted


def test_a_key_that_is_a_time_filters(server: Server, counts: list[Row]) -> None:
    wanted = [as_json(one) for one in counts if one["window_start"] == minute(2)]
    assert rows_of(server, "counts", window_start="2024-05-01T12:02:00Z") == wanted


def test_only_the_newest_revision_of_a_row_is_seen(database: Database, server: Server) -> None:
    database.view("revised", COUNTS, KEY, [row("/a", 0, 1)])
    database.add("revised", COUNTS, [row("/a", 0, 2)], revision=7)
    assert rows_of(server, "revised") == [as_json(row("/a", 0, 2))]


@pytest.mark.parametrize("order", ["views", "-views", "mean", "-mean", "page_id", ""])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_have_every_row_once_in_order(
    database: Database, server: Server, order: str, limit: int
) -> None:
    made = many_rows()
    if "many" not in {view["name"] for view in server.json("/api/views")["views"]}:
        database.view("many", COUNTS, KEY, made)
    parameters = {"limit": str(limit), **({"order": order} if order else {})}
    assert all_pages(server, "many", **parameters) == expected_order(made, order)


def many_rows() -> list[Row]:
    """Return rows with many equal values, missing ones, and one that is no number."""
    chance = random.Random(1)
    means = [None, 0.1, -2.5, 1e300, 3.0, math.nan]
    return [row(f"/p{n % 7}", n // 7, chance.randrange(3), means[n % 6]) for n in range(40)]


def expected_order(made: list[Row], order: str) -> list[Row]:
    """Return `made` as JSON, by column then key; what is missing stands last either way."""
    column, falling = order.removeprefix("-") or "window_start", order.startswith("-") or not order
    clean = [
        {**one, "mean": None if one["mean"] is None or math.isnan(one["mean"]) else one["mean"]}
        for one in made
    ]
    place = lambda one: (one[column], one["window_start"], one["page_id"])  # noqa: E731
    there = [one for one in clean if one[column] is not None]
    missing = [one for one in clean if one[column] is None]
    ordered = sorted(there, key=place, reverse=falling)
    key = lambda one: (one["window_start"], one["page_id"])  # noqa: E731
    ordered += sorted(missing, key=key, reverse=falling)
    return [as_json(one) for one in ordered]


def test_a_row_added_meanwhile_repeats_no_other(database: Database, server: Server) -> None:
    database.view("growing", COUNTS, KEY, [row(f"/{n}", n, n) for n in range(4)])
    first = server.json("/api/views/growing", limit=2)
    database.add("growing", COUNTS, [row("/new", 9, 9)])
    second = server.json("/api/views/growing", limit=2, cursor=first["next"])
    assert [one["page_id"] for one in first["rows"] + second["rows"]] == ["/3", "/2", "/1", "/0"]
    assert second["next"] is None


def test_the_next_page_is_linked(server: Server, counts: list[Row]) -> None:
    answer = server.get("/api/views/counts", params={"limit": 5, "page_id": ["/a", "/d"]})
    following = server.get(answer.links["next"]["url"]).json()
    pages = [one for one in counts if one["page_id"] in ("/a", "/d")]
    assert following["rows"] == [as_json(one) for one in pages[5:]]


def test_csv_has_a_header_and_the_same_rows(database: Database, server: Server) -> None:
    database.view("texts", COUNTS, KEY, [row('/"a",\n', 0, 5, 0.5), row("/b", 1, 6)])
    answer = server.get("/api/views/texts", params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="texts.csv"'
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["page_id", "window_start", "views", "mean"],
        ["/b", "2024-05-01 12:01:00.000Z", "6", ""],
        ['/"a",\n', "2024-05-01 12:00:00.000Z", "5", "0.5"],
    ]


def test_arrow_has_types(server: Server, counts: list[Row]) -> None:
    answer = server.get("/api/views/counts", params={"format": "arrow", "limit": 3})
    table = pa.ipc.open_stream(answer.content).read_all()
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert {field.name: str(field.type) for field in table.schema} == {
        "page_id": "string",
        "window_start": "timestamp[ms, tz=UTC]",
        "views": "int64",
        "mean": "double",
    }
    assert table.to_pylist() == counts[:3]


def test_no_rows_are_an_answer(server: Server, counts: list[Row]) -> None:
    answer = server.json("/api/views/counts", page_id="/none")
    assert (answer["rows"], answer["next"]) == ([], None)
    arrow = server.get("/api/views/counts", params={"page_id": "/none", "format": "arrow"})
    assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 0


@pytest.mark.parametrize("page", HOSTILE)
def test_a_hostile_name_is_a_value_and_nothing_else(
    database: Database, server: Server, page: str
) -> None:
    view = f"hostile{HOSTILE.index(page)}"
    made = [row(name, at, at) for at, name in enumerate(HOSTILE)]
    database.view(view, COUNTS, KEY, made)
    assert rows_of(server, view, page_id=page) == [as_json(made[HOSTILE.index(page)])]
    paged = all_pages(server, view, order="page_id", limit="1")
    assert [one["page_id"] for one in paged] == sorted(HOSTILE, key=str.encode)


def test_bytes_that_are_no_text_are_shown_as_hexadecimal(
    database: Database, server: Server
) -> None:
    database.view("raw", {"page_id": "string", "value": "string?"}, ("page_id",))
    table = f"{database.settings.database}.raw_v1"
    database.clickhouse.command(
        f"INSERT INTO {table} (page_id, value) VALUES ('/a', unhex('00ff41')), ('/b', 'text')"
    )
    wanted = [{"page_id": "/a", "value": "0x00ff41"}, {"page_id": "/b", "value": "text"}]
    assert rows_of(server, "raw") == wanted


def _literal(value: bytes | None) -> str:
    return "NULL" if value is None else f"unhex('{value.hex()}')"


@pytest.mark.parametrize("order", ["value", "-value", "page_id"])
def test_pages_go_on_after_bytes_that_are_no_text(
    database: Database, server: Server, order: str
) -> None:
    # Text with a NUL can't be one of ClickHouse's parameters.
    values = [b"\x00\xffA", b"\x00", b"", b"text", b"\xff\xfe", b"\xc3\xa4", None, b"\xff\xfe"]
    made = [(b"/%d\xff" % at, value) for at, value in enumerate(values)]
    view = f"raw_pages{['value', '-value', 'page_id'].index(order)}"
    database.view(view, {"page_id": "string", "value": "string?"}, ("page_id",))
    rows = ", ".join(f"(unhex('{page.hex()}'), {_literal(value)})" for page, value in made)
    table = f"{database.settings.database}.{view}_v1"
    database.clickhouse.command(f"INSERT INTO {table} (page_id, value) VALUES {rows}")

    paged = all_pages(server, view, order=order, limit="1")

    if order != "page_id":
        falling = order.startswith("-")
        there = [one for one in made if one[1] is not None]
        made = [*sorted(there, key=lambda one: (one[1], one[0]), reverse=falling), made[6]]
    assert [one["page_id"] for one in paged] == [f"0x{page.hex()}" for page, _ in made]
    answer = server.get(f"/api/views/{view}", params={"format": "csv", "limit": 1, "order": order})
    shown = f"0x{made[0][0].hex()}"
    assert list(csv.reader(io.StringIO(answer.text)))[1][0] == shown
    following = server.get(answer.links["next"]["url"])
    assert list(csv.reader(io.StringIO(following.text)))[1][0] == f"0x{made[1][0].hex()}"


def test_pages_go_on_after_the_longest_page_ids(database: Database, server: Server) -> None:
    columns = {"page_id": "string", "text": "string"}
    rows = [{"page_id": f"/{n}{'ä' * 1023}", "text": str(n) * 3500} for n in range(3)]
    database.view("long_ids", columns, ("page_id",), rows)
    assert all_pages(server, "long_ids", limit="1") == rows
    answer = server.get("/api/views/long_ids", params={"limit": 1, "format": "csv"})
    following = server.get(answer.links["next"]["url"]).text
    assert next(csv.reader(io.StringIO(following.split("\n", 1)[1])))[0] == rows[1]["page_id"]


def test_values_too_long_to_page_by_are_refused(database: Database, server: Server) -> None:
    columns = {"page_id": "string", "text": "string", "letter": "string"}
    rows = [
        {"page_id": f"/{n}", "text": str(n) * 3500, "letter": str(n) * 64_000} for n in range(2)
    ]
    database.view("long_texts", columns, ("page_id",), rows)
    by_text = server.get("/api/views/long_texts", params={"order": "text", "limit": 1})
    assert (by_text.status_code, by_text.links) == (200, {})
    following = {"order": "text", "limit": 1, "cursor": by_text.json()["next"]}
    assert rows_of(server, "long_texts", **following) == rows[1:]
    assert server.refusal("/api/views/long_texts", order="text", limit=1, format="csv") == (
        400,
        "The next page's address is too long for a header; ask for JSON, or order by another "
        "column.",
    )
    assert server.refusal("/api/views/long_texts", order="letter", limit=1) == (
        400,
        "The values of letter, page_id are too long to page by; order by another column.",
    )
    assert rows_of(server, "long_texts", order="letter") == rows


def test_a_page_id_with_slashes_has_its_figures(database: Database, server: Server) -> None:
    columns = {"page_id": "string", "views": "long", "first_seen": "time"}
    pages = ["/blog/2024/a b.html", "/", "no-slash", "//x?y=%2F"]
    made = [{"page_id": page, "views": n, "first_seen": NOON} for n, page in enumerate(pages)]
    assert server.refusal("/api/page-stats//") == (
        404,
        "View page_stats has no data yet, or its job does not run; `kappa views` names it.",
    )
    database.view("page_stats", columns, ("page_id",), made)
    for number, page in enumerate(pages):
        path = page.replace("%", "%25").replace("?", "%3F").replace(" ", "%20")
        assert server.get(f"/api/page-stats/{path}").json() == {
            "view": "page_stats",
            "version": 1,
            "page_id": page,
            "views": number,
            "first_seen": "2024-05-01T12:00:00.000Z",
        }
    assert server.refusal("/api/page-stats//none") == (
        404,
        'No view of page "/none" has been counted; ids begin with a slash.',
    )
    assert server.refusal("/api/page-stats/%00") == (
        400,
        "The value of page_id has a NUL character.",
    )


CURSOR = (
    "The cursor belongs to another query; begin again without it, or keep the filters and the "
    "order."
)
REFUSALS = [
    ({"limit": "0"}, "The limit is a number from 1 to 10,000; page on with the cursor."),
    ({"limit": "10001"}, "The limit is a number from 1 to 10,000; page on with the cursor."),
    (
        {"limit": "00000000019999999"},
        "The limit is a number from 1 to 10,000; page on with the cursor.",
    ),
    ({"limit": "many"}, "The limit is a number from 1 to 10,000; page on with the cursor."),
    ({"limt": "5"}, 'There is no parameter of view counts "limt"; did you mean "limit"?'),
    ({"order": "view"}, 'There is no column in view counts "view"; did you mean "views"?'),
    ({"order": "views, 1"}, 'There is no column in view counts "views, 1"; did you mean "views"?'),
    ({"format": "jsn"}, 'There is no format "jsn"; did you mean "json"?'),
    (
        {"from": "yesterday"},
        '"yesterday" is no time for from; write 2026-01-31T12:00:00Z or epoch milliseconds.',
    ),
    (
        {"window_start": "1e999999999"},
        '"1e999999999" is no time for window_start; write 2026-01-31T12:00:00Z or epoch '
        "milliseconds.",
    ),
    ({"cursor": "bm9uZQ"}, CURSOR),
    ({"cursor": "ä"}, CURSOR),
    ({"cursor": "W10"}, CURSOR),
    ({"page_id": "x" * 4001}, "The values of a request may have 4000 characters together."),
    ({"page_id": ["x"] * 51}, "A request may have 50 parameters, not 51."),
    ({"limit": ["1", "2"]}, 'Parameter "limit" is given twice.'),
    ({"page_id": "a\0b"}, "The value of page_id has a NUL character."),
]


@pytest.mark.parametrize(("parameters", "sentence"), REFUSALS)
def test_what_cant_be_asked_is_refused_in_one_sentence(
    server: Server, counts: list[Row], parameters: dict[str, Any], sentence: str
) -> None:
    assert server.refusal("/api/views/counts", **parameters) == (400, sentence)


def test_a_cursor_is_bound_to_its_query(server: Server, counts: list[Row]) -> None:
    cursor = server.json("/api/views/counts", limit=1)["next"]
    for other in ({"order": "views"}, {"page_id": "/a"}, {"from": "0"}):
        assert server.refusal("/api/views/counts", cursor=cursor, **other) == (400, CURSOR)
    assert len(rows_of(server, "counts", cursor=cursor, limit=3)) == 3


def test_a_cursor_of_no_text_or_without_end_is_refused() -> None:
    columns = (ViewColumn("page_id", "String"), ViewColumn("window_start", "DateTime64(3)"))
    key = ("page_id", "window_start")
    view = ViewInfo("counts", "", 1, (1,), "counts_v1", key, columns, 0)
    first = statement("views", view, [("order", "page_id")])
    digest = json.loads(decoded(first.next_cursor({"page_id": b"/", "window_start": 0})))[0]
    for text in (
        json.dumps([digest, "\ud800", 0]),
        json.dumps([digest, "/", "\ud800"]),
        json.dumps([digest, [["2f"]], 0]),
        json.dumps([digest, ["2g"], 0]),
        "[" * 2900,
    ):
        cursor = base64.urlsafe_b64encode(text.encode()).decode()
        with pytest.raises(ApiError) as refused:
            statement("views", view, [("order", "page_id"), ("cursor", cursor)])
        assert (refused.value.status, str(refused.value)) == (400, CURSOR)


def decoded(cursor: str) -> bytes:
    return base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))


def test_unknown_names_get_the_nearest(server: Server, counts: list[Row]) -> None:
    assert server.refusal("/api/views/count") == (
        404,
        'There is no view "count"; did you mean "counts"?',
    )
    assert server.refusal("/api/view") == (
        404,
        'There is no page "/api/view"; did you mean "/api/views"?',
    )
    internal = server.get("/api/views/counts_v1")
    assert internal.status_code == 404


def test_a_view_without_time_has_no_range(database: Database, server: Server) -> None:
    database.view("timeless", {"page_id": "string", "n": "long"}, ("page_id",))
    assert server.refusal("/api/views/timeless", to="0") == (
        400,
        'View timeless has no time; leave out "to".',
    )


def test_numbers_that_are_keys_filter_and_are_checked(database: Database, server: Server) -> None:
    columns = {"n": "long", "good": "boolean", "share": "double"}
    made = [{"n": n, "good": n > 0, "share": n / 4} for n in (-(2**63), 0, 2**63 - 1)]
    database.view("numbers", columns, ("n", "good"), made)
    assert rows_of(server, "numbers", n=str(2**63 - 1), good="true") == [made[2]]
    assert rows_of(server, "numbers", n=str(-(2**63)))[0]["share"] == -(2**63) / 4
    assert all_pages(server, "numbers", limit="1", order="-share") == made[::-1]
    assert server.refusal("/api/views/numbers", n=str(2**63)) == (
        400,
        '"9223372036854775808" is no value of n, which is Int64.',
    )
    assert server.refusal("/api/views/numbers", good="maybe") == (
        400,
        '"maybe" is no value of good, which is Bool.',
    )


def test_the_description_and_its_page_are_there(server: Server) -> None:
    described = server.json("/openapi.json")
    assert {"/api/views", "/api/views/{view}", "/api/page-stats/{page_id}"} <= set(
        described["paths"]
    )
    assert "swagger-ui-bundle.js" in server.get("/docs").text
