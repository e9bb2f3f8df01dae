"""Passwords, errors, settings and encodings, without a process."""

from __future__ import annotations

import base64
import errno
import gzip
import io
import struct
import tracemalloc
import zlib

import lz4.block
import lz4.frame
import pytest
from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128

from deploy.clickhouse_endpoint import access, blocks, coding, errors
from deploy.clickhouse_endpoint.access import User, Users
from deploy.clickhouse_endpoint.context import Context, buffered, request_context
from deploy.clickhouse_endpoint.errors import QueryError
from deploy.clickhouse_endpoint.limits import Limits
from deploy.clickhouse_endpoint.messages import form_fields
from deploy.clickhouse_endpoint.streams import Bounded, Received, read_all

OWNER = User("kappa", "secret", reader=False)
READER = User("reader", "other", reader=True)
USERS = Users([OWNER, READER])
PLAIN = bytes(range(256)) * 20_000
ZSTD = zstd.compress(PLAIN)


def test_a_user_is_known_by_name_and_password() -> None:
    assert USERS.authenticate("kappa", "secret") is OWNER
    assert USERS.authenticate("reader", "other") is READER


@pytest.mark.parametrize(
    ("name", "password"), [("kappa", "other"), ("kappa", ""), ("nobody", ""), ("nobody", "secret")]
)
def test_wrong_password_and_unknown_user_are_told_alike(name: str, password: str) -> None:
    with pytest.raises(QueryError) as caught:
        USERS.authenticate(name, password)
    assert caught.value.code == 516
    assert errors.http_status(caught.value) == 403
    assert caught.value.text("26.9") == (
        f"Code: 516. DB::Exception: {name}: Authentication failed: password is incorrect, or "
        "there is no user with such name. (AUTHENTICATION_FAILED) (version 26.9)\n"
    )


def test_a_user_never_prints_its_password() -> None:
    assert "secret" not in repr(OWNER)


@pytest.mark.parametrize(
    ("headers", "parameters", "expected"),
    [
        ({}, {}, ("default", "")),
        ({}, {"user": "a", "password": "b"}, ("a", "b")),
        ({"authorization": "Basic " + base64.b64encode(b"a:b:c").decode()}, {}, ("a", "b:c")),
        ({"authorization": "basic !!"}, {"user": "a"}, ("default", "")),
        ({"authorization": "Bearer x"}, {"user": "a", "password": "b"}, ("a", "b")),
        ({"x-clickhouse-user": "a", "x-clickhouse-key": "b"}, {"user": "z"}, ("a", "b")),
        ({"x-clickhouse-key": "b"}, {}, ("default", "b")),
    ],
)
def test_credentials_come_by_header_basic_or_parameter(
    headers: dict[str, str], parameters: dict[str, str], expected: tuple[str, str]
) -> None:
    assert access.credentials(headers, parameters) == expected


@pytest.mark.parametrize(
    ("text", "code", "name", "message", "status"),
    [
        ("Code: 60. DB::Exception: No t. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE", "No t.", 404),
        ("x: Code: 62. DB::Exception: a (b) (SYNTAX_ERROR)", 62, "SYNTAX_ERROR", "a (b)", 400),
        (
            "Code: 159. DB::Exception: Slow. (TIMEOUT_EXCEEDED)",
            159,
            "TIMEOUT_EXCEEDED",
            "Slow.",
            408,
        ),
        ("Code: 164. DB::Exception: No. (READONLY)", 164, "READONLY", "No.", 500),
        ("Code: 7. DB::NetException: Off.", 7, "UNKNOWN_EXCEPTION", "Off.", 500),
        (
            "Code: 27. DB::Exception: Code: 27. DB::Exception: Bad\nrow. (INCORRECT_DATA) "
            "(version 26.9.2.1). (INCORRECT_DATA)",
            27,
            "INCORRECT_DATA",
            "Bad\nrow.",
            400,
        ),
        ("no code", 1002, "UNKNOWN_EXCEPTION", "no code", 500),
    ],
)
def test_the_engines_errors_keep_code_name_and_status(
    text: str, code: int, name: str, message: str, status: int
) -> None:
    error = errors.from_engine(text)
    assert (error.code, error.name, error.message) == (code, name, message)
    assert errors.http_status(error) == status


def test_settings_of_the_url_reach_the_engine_and_those_of_the_transport_do_not() -> None:
    limits = Limits(max_execution_seconds=7, max_query_memory_bytes=1 << 20)
    given = {"query": "SELECT 1", "param_x": "1", "max_threads": "3", "wait_end_of_query": "1"}
    context = request_context(given, OWNER, "db", limits, reads=True)
    assert context == Context(
        "db",
        (
            ("allow_introspection_functions", "0"),
            ("implicit_select", "0"),
            ("max_execution_time", "7"),
            ("max_memory_usage", str(1 << 20)),
            ("max_threads", "3"),
        ),
        0,
    )


@pytest.mark.parametrize(
    ("user", "given", "bound"),
    [
        (READER, {}, "99"),
        (READER, {"max_result_bytes": "7"}, "7"),
        (READER, {"max_result_bytes": "0"}, "99"),
        (READER, {"max_result_bytes": "100"}, "99"),
        (READER, {"max_result_bytes": "1e1"}, "99"),
        (OWNER, {}, "99"),
        (OWNER, {"max_result_bytes": "0"}, "0"),
    ],
)
def test_a_reader_can_only_lower_the_bound_of_an_answer_held_in_memory(
    user: User, given: dict[str, str], bound: str
) -> None:
    context = request_context(given, user, "", Limits(), reads=True)
    held = buffered(context, user, Limits.model_construct(max_result_bytes=99))
    assert dict(held.settings)["max_result_bytes"] == bound
    assert len(held.settings) == len(dict(held.settings))


def test_a_statement_that_writes_has_no_time_limit() -> None:
    context = request_context({}, OWNER, "", Limits(), reads=False)
    assert dict(context.settings)["max_execution_time"] == "0"


@pytest.mark.parametrize("name", ["a = 1, b", "a b", "1a", "a-b", "a'", ""])
def test_a_setting_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(QueryError, match="Unknown setting"):
        request_context({name: "1"}, OWNER, "", Limits(), reads=True)


@pytest.mark.parametrize("encoding", coding.ENCODINGS)
def test_every_encoding_comes_back_as_it_went(encoding: str) -> None:
    packed = b"".join(coding.compress(encoding, iter([PLAIN[:1000], b"", PLAIN[1000:]])))
    assert read_all(coding.Decoded(encoding, io.BytesIO(packed))) == PLAIN
    assert b"".join(coding.compress(encoding, iter([]))) != b""


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("lz4", lz4.frame.compress(PLAIN)),
        ("zstd", zstd.compress(PLAIN)),
        ("gzip", gzip.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
    ],
)
def test_a_body_that_breaks_off_is_an_error_and_never_fewer_rows(
    encoding: str, packed: bytes
) -> None:
    for size in (len(packed) - 1, len(packed) // 2, 10):
        with pytest.raises(QueryError) as caught:
            read_all(coding.Decoded(encoding, io.BytesIO(packed[:size])))
        assert errors.http_status(caught.value) == 400


def test_garbage_and_unknown_encodings_are_errors() -> None:
    for encoding in ("lz4", "zstd", "gzip", "deflate"):
        with pytest.raises(QueryError, match="Content-Encoding"):
            read_all(coding.Decoded(encoding, io.BytesIO(b"garbage that is no frame")))
    with pytest.raises(QueryError, match="Unknown compression method: br"):
        coding.Decoded("br", io.BytesIO(b""))


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("lz4,zstd,gzip,deflate", "lz4"),
        ("zstd;q=0, gzip;q=0.5", "gzip"),
    ],
)
def test_the_cheapest_encoding_that_the_client_knows_is_taken(
    accepted: str, expected: str | None
) -> None:
    assert coding.negotiate(accepted) == expected


def test_native_blocks_come_back_as_they_went() -> None:
    packed = b"".join(blocks.compress(iter([PLAIN, b"", b"x"])))
    assert read_all(blocks.BlockReader(io.BytesIO(packed))) == PLAIN + b"x"


def test_a_native_block_is_the_one_that_clickhouse_writes() -> None:
    # Of SELECT 1 FORMAT RowBinary; the JDBC driver finds its checksum right.
    (block,) = blocks.compress(iter([b"\x01"]))
    checksum = "cab557c22f914940e66f1600f4d0acd2"
    assert block == bytes.fromhex(f"{checksum} 82 0b000000 01000000 10 01")


@pytest.mark.parametrize("position", [0, 15, 16, 20, 30])
def test_a_damaged_native_block_is_an_error(position: int) -> None:
    packed = bytearray(b"".join(blocks.compress(iter([PLAIN]))))
    packed[position] ^= 0xFF
    with pytest.raises(QueryError):
        read_all(blocks.BlockReader(io.BytesIO(bytes(packed))))


def _block(method: int, data: bytes, size: int) -> bytes:
    block = struct.pack("<BII", method, len(data) + 9, size) + data
    number = CityHash128(block)
    return struct.pack("<QQ", number >> 64, number & (1 << 64) - 1) + block


def test_native_blocks_of_any_method_come_back() -> None:
    packed = _block(0x02, PLAIN, len(PLAIN)) + _block(0x90, zstd.compress(PLAIN), len(PLAIN))
    assert read_all(blocks.BlockReader(io.BytesIO(packed))) == PLAIN * 2


@pytest.mark.parametrize("size", [0, 1, len(PLAIN) - 1, len(PLAIN) + 1])
@pytest.mark.parametrize(
    ("method", "data"),
    [(0x02, PLAIN), (0x82, lz4.block.compress(PLAIN, store_size=False)), (0x90, ZSTD)],
)
def test_a_native_block_of_another_size_than_it_states_is_an_error(
    method: int, data: bytes, size: int
) -> None:
    with pytest.raises(QueryError, match="compressed block"):
        read_all(blocks.BlockReader(io.BytesIO(_block(method, data, size))))


def test_a_native_block_takes_no_more_memory_than_it_states() -> None:
    bomb = _block(0x90, zstd.compress(bytes(256 * 1024 * 1024)), 1)
    tracemalloc.start()
    try:
        with pytest.raises(QueryError, match="does not have the 1 bytes"):
            read_all(blocks.BlockReader(io.BytesIO(bomb)))
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_native_block_that_breaks_off_is_an_error() -> None:
    packed = b"".join(blocks.compress(iter([PLAIN])))
    for size in (len(packed) - 1, 20, 10):
        with pytest.raises(QueryError, match="amid"):
            read_all(blocks.BlockReader(io.BytesIO(packed[:size])))


def test_a_body_shorter_than_stated_is_an_error() -> None:
    assert read_all(Received(io.BytesIO(b"abc"), 3, 100)) == b"abc"
    with pytest.raises(QueryError, match="3 of 4 bytes"):
        read_all(Received(io.BytesIO(b"abc"), 4, 100))


def test_a_body_beyond_its_limit_is_refused() -> None:
    for body in (Received(io.BytesIO(PLAIN), None, 1000), Bounded(io.BytesIO(PLAIN), 1000, "body")):
        with pytest.raises(QueryError) as caught:
            read_all(body)
        assert errors.http_status(caught.value) == 413


def test_a_form_gives_the_query_and_its_parameters() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT {a:String}\r\n'
        b'--x\r\nContent-Disposition: form-data; name="param_a"\r\n\r\n\xc3\xa4\n\'\r\n--x--\r\n'
    )
    fields = form_fields("multipart/form-data; boundary=x", body)
    assert fields == {"query": "SELECT {a:String}", "param_a": "ä\n'"}


def test_a_form_with_an_external_table_is_refused() -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="t"; filename="t"\r\n\r\n1\r\n--x--\r\n'
    with pytest.raises(QueryError, match="external tables"):
        form_fields("multipart/form-data; boundary=x", body)


def test_a_full_disk_is_told_as_a_clickhouse_server_does() -> None:
    full = errors.of_endpoint(OSError(errno.ENOSPC, "No space left on device"))
    assert (full.code, full.name) == (243, "NOT_ENOUGH_SPACE")
    assert "No space left on device" in full.message
    other = errors.of_endpoint(OSError(errno.EIO, "/secret"))
    assert (other.code, other.message) == (1002, "The endpoint failed, its log has the reason.")
