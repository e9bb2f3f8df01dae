"""Files to events: exact dicts for given lines, and each refused piece with its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest

from schemas.inputs import (
    SAMPLE,
    Bad,
    Format,
    Good,
    InputError,
    detect_format,
    open_input,
    read_events,
)
from schemas.streams import ORDERS, PAGE_VIEWS, Stream

LINE = (
    '83.149.9.216 - - [17/May/2015:12:05:03 +0200] "GET /a/b.png?x=1&y=/2 HTTP/1.1" 200 203023 '
    '"http://example.org/from" "Mozilla/5.0 (X11; \\"quoted\\")"'
)


def read(
    path: Path,
    file_format: Format | None = None,
    stream: Stream = PAGE_VIEWS,
    ignore_unknown: bool = False,
) -> list[Good | Bad]:
    with open_input(path) as source:
        told = file_format or detect_format(source)
        return list(read_events(source, stream, told, ignore_unknown=ignore_unknown))


def read_text(folder: Path, text: str, name: str = "access.log") -> list[Good | Bad]:
    path = folder / name
    path.write_text(text)
    return read(path)


def only(pieces: list[Good | Bad]) -> dict[str, Any]:
    (piece,) = pieces
    assert isinstance(piece, Good), piece
    return piece.event


def test_combined_log_line_becomes_this_page_view(tmp_path: Path) -> None:
    assert only(read_text(tmp_path, LINE + "\n")) == {
        "event_id": "2cacc3cacfdd122ec6ec5a37666b7382",
        "event_time": 1_431_857_103_000,
        "user_id": "83.149.9.216",
        "page_id": "/a/b.png",
        "duration_ms": None,
        "status": 200,
        "method": "GET",
        "bytes_sent": 203023,
        "country": None,
        "referrer": "http://example.org/from",
        "user_agent": 'Mozilla/5.0 (X11; "quoted")',
    }


def test_dashes_become_nulls(tmp_path: Path) -> None:
    line = '1.2.3.4 - - [17/May/2015:10:05:03 +0000] "HEAD / HTTP/1.1" 304 - "-" "-"'
    event = only(read_text(tmp_path, line))
    nulls = {name for name, value in event.items() if value is None}
    assert nulls == {"duration_ms", "bytes_sent", "country", "referrer", "user_agent"}
    assert (event["status"], event["method"], event["page_id"]) == (304, "HEAD", "/")


def test_common_log_line_has_neither_referrer_nor_agent(tmp_path: Path) -> None:
    line = '1.2.3.4 - kim [17/May/2015:10:05:03 +0000] "GET /x HTTP/1.0" 200 12'
    event = only(read_text(tmp_path, line))
    assert (event["page_id"], event["referrer"], event["user_agent"]) == ("/x", None, None)


@pytest.mark.parametrize(
    ("request_line", "page"),
    [
        ("GET /a HTTP/1.1", "/a"),
        ("GET /a", "/a"),
        ("GET /a b HTTP/1.1", "/a b"),
        ("GET //a//b?q HTTP/1.1", "//a//b"),
        ("GET http://example.org/a?q HTTP/1.1", "/a"),
        ("GET http://example.org HTTP/1.1", "/"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("GET /caf\\xc3\\xa9 HTTP/1.1", "/café"),
    ],
)
def test_page_is_the_path_of_the_request(tmp_path: Path, request_line: str, page: str) -> None:
    line = f'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "{request_line}" 200 1 "-" "-"'
    assert only(read_text(tmp_path, line))["page_id"] == page


@pytest.mark.parametrize("request_line", ["-", "", "\\x16\\x03\\x01", "GET"])
def test_request_without_a_page_is_refused_with_its_line(tmp_path: Path, request_line: str) -> None:
    line = f'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "{request_line}" 408 - "-" "-"'
    _, bad = read_text(tmp_path, f"{LINE}\n{line}\n")
    assert isinstance(bad, Bad)
    assert bad.where == "access.log, line 2"
    assert 'field "request"' in bad.why


def test_cut_line_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    good, bad, after = read_text(tmp_path, f"{LINE}\n{LINE[:-1]}\n{LINE}\n")
    assert isinstance(good, Good)
    assert isinstance(after, Good)
    assert isinstance(bad, Bad)
    assert bad.where == "access.log, line 2"
    assert bad.why.startswith("no line of the common or combined log format: 83.149.9.216")


def test_same_file_gives_same_ids_compressed_or_not(tmp_path: Path) -> None:
    plain = read_text(tmp_path, f"{LINE}\n{LINE}\n")
    (tmp_path / "access.log.gz").write_bytes(gzip.compress(f"{LINE}\n{LINE}\n".encode()))
    packed = read(tmp_path / "access.log.gz")
    ids = [piece.event["event_id"] for piece in plain if isinstance(piece, Good)]
    assert ids == [piece.event["event_id"] for piece in packed if isinstance(piece, Good)]
    assert len(set(ids)) == 2


def test_sample_is_9999_page_views_and_one_cut_line() -> None:
    pieces = read(SAMPLE)
    bad = [piece.where for piece in pieces if isinstance(piece, Bad)]
    events = [piece.event for piece in pieces if isinstance(piece, Good)]
    assert bad == ["access.log.gz, line 8899"]
    assert len({event["event_id"] for event in events}) == 9999
    assert min(event["event_time"] for event in events) == 1_431_857_100_000
    assert max(event["event_time"] for event in events) == 1_432_155_959_000


def test_access_log_is_no_input_for_another_stream(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(LINE)
    with pytest.raises(InputError, match="an access log holds page_views and no payments"):
        read(tmp_path / "a.log", stream=replace(PAGE_VIEWS, name="payments"))


def test_json_lines_take_both_forms_of_time_and_defaults(tmp_path: Path) -> None:
    rows = [
        {"event_id": "1", "event_time": 1_431_857_103_123, "user_id": "u", "page_id": "/a"},
        {
            "event_id": "2",
            "event_time": "2015-05-17T12:05:03.123+02:00",
            "user_id": "ü",
            "page_id": "/b",
            "duration_ms": 12,
            "status": 500,
            "country": "DE",
        },
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n")
    defaults = {"duration_ms": None, "status": 200, "method": "GET", "bytes_sent": None}
    defaults |= {"country": None, "referrer": None, "user_agent": None}
    assert read(path) == [
        Good("events.jsonl, line 1", defaults | rows[0]),
        Good("events.jsonl, line 3", defaults | rows[1] | {"event_time": 1_431_857_103_123}),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON: "),
        ('{"event_id": "1"}', 'field "event_time" is missing'),
        ("[1]", 'field "PageView" must be an object and is a list'),
        ("[" * 100_000, "no JSON: "),
        ('{"event_id": "\\xff"}', "no JSON: "),
        ('{"status": ' + "9" * 5000 + "}", "no JSON: "),
    ],
)
def test_bad_json_line_is_refused_with_its_place(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(f"\n{line}\n")
    (bad,) = read(path, Format.JSON_LINES)
    assert isinstance(bad, Bad)
    assert bad.where == "e.jsonl, line 2"
    assert bad.why.startswith(why)


def test_unknown_json_field_is_refused_unless_ignored(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"event_id":"1","event_time":1,"user_id":"u","page_id":"/","x":1}\n')
    (refused,) = read(path)
    assert isinstance(refused, Bad)
    assert refused.why.startswith('field "x" is not in the schema')
    assert "x" not in only(read(path, ignore_unknown=True))


def test_avro_file_of_an_older_schema_is_read_as_the_current_one(tmp_path: Path) -> None:
    schema = PAGE_VIEWS.schema
    older = {**schema, "fields": schema["fields"][:4]}
    row = {"event_id": "1", "event_time": 1_431_857_103_123, "user_id": "u", "page_id": "/a"}
    path = tmp_path / "events.avro"
    with path.open("wb") as file:
        fastavro.writer(file, older, [row], codec="deflate")
    (good,) = read(path)
    assert isinstance(good, Good)
    assert good.where == "events.avro, record 1"
    assert good.event | row == good.event
    assert (good.event["status"], good.event["country"]) == (200, None)


def test_avro_file_of_other_records_is_refused(tmp_path: Path) -> None:
    other = {"type": "record", "name": "Other", "fields": [{"name": "a", "type": "long"}]}
    path = tmp_path / "other.avro"
    with path.open("wb") as file:
        fastavro.writer(file, other, [{"a": 1}])
    with pytest.raises(InputError, match=r"other\.avro can't be read as page_views"):
        read(path)


def test_avro_file_with_a_time_beyond_the_calendar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "far.avro"
    row = {"event_id": "1", "event_time": 1_431_857_103_123_000, "user_id": "u", "page_id": "/a"}
    with path.open("wb") as file:
        fastavro.writer(file, PAGE_VIEWS.schema, [row])
    with pytest.raises(InputError, match=r"far\.avro can't be read as page_views"):
        read(path)


def test_damaged_avro_file_says_where_it_ends(tmp_path: Path) -> None:
    row = {"event_id": "1", "event_time": 1, "user_id": "u", "page_id": "/a"}
    path = tmp_path / "cut.avro"
    with path.open("wb") as file:
        fastavro.writer(file, PAGE_VIEWS.schema, [row] * 3)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"cut\.avro"):
        read(path)


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        # The second branch of a union of two becomes the sixth.
        (b"\x02/\x00", b"\x02/\x0a", "after record 0: list index out of range"),
        (b'"status", "type"', b'"status", "tipe"', "after record 0: .* is missing 'type'"),
    ],
)
def test_avro_file_with_other_bytes_is_refused(
    tmp_path: Path, found: bytes, put: bytes, said: str
) -> None:
    row = {"event_id": "1", "event_time": 1, "user_id": "u", "page_id": "/"}
    path = tmp_path / "odd.avro"
    with path.open("wb") as file:
        fastavro.writer(file, PAGE_VIEWS.schema, [row])
    damaged = path.read_bytes()
    assert found in damaged
    path.write_bytes(damaged.replace(found, put))
    with pytest.raises(InputError, match=rf"odd\.avro can't be read as page_views {said}"):
        read(path)


def test_cut_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.log.gz"
    path.write_bytes(SAMPLE.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.log\.gz is cut off or damaged"):
        read(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":1}\n', Format.JSON_LINES),
        (b'\xef\xbb\xbf \n{"a":1}\n', Format.JSON_LINES),
        (b"Obj\x01...", Format.AVRO),
        (LINE.encode(), Format.ACCESS_LOG),
        (b"\r\n" + LINE.encode(), Format.ACCESS_LOG),
        (gzip.compress(LINE.encode()), Format.ACCESS_LOG),
        (gzip.compress(b'{"a":1}'), Format.JSON_LINES),
    ],
)
def test_format_is_told_from_the_content(tmp_path: Path, content: bytes, expected: Format) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    with open_input(path) as source:
        assert detect_format(source) == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf\r\n", gzip.compress(b"", mtime=0)])
def test_file_without_events_has_none_of_any_stream(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_bytes(content)
    assert read(path, stream=ORDERS) == []


def test_unknown_format_asks_for_its_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")
    with open_input(path) as source, pytest.raises(InputError, match="name it with --format"):
        detect_format(source)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bz2.compress(LINE.encode()), "is packed, and not with gzip; unpack it first."),
        (lzma.compress(LINE.encode()), "is packed, and not with gzip; unpack it first."),
        ('{"a":1}\r\n'.encode("utf-16"), "is no text in UTF-8; convert it first."),
        (b'[{"a":1}]\n', "holds a JSON array; write one event a line, as jq -c '.[]' does."),
    ],
    ids=["bzip2", "xz", "utf-16", "array"],
)
def test_what_is_near_a_known_format_is_told_from_an_access_log(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    with open_input(path) as source, pytest.raises(InputError) as refused:
        detect_format(source)
    assert str(refused.value) == f"input {said}"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"can't read .*nowhere\.log: No such file"):
        read(tmp_path / "nowhere.log")
