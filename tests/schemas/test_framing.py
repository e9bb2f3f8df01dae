"""The Confluent frame, byte for byte."""

from __future__ import annotations

import pytest

from schemas.framing import BadFrame, frame, header, split


def test_frame_is_zero_byte_then_big_endian_id_then_body() -> None:
    assert frame(258, b"body") == b"\x00\x00\x00\x01\x02body"
    assert header(258) == b"\x00\x00\x00\x01\x02"


@pytest.mark.parametrize("schema_id", [0, 1, 2**31, 2**32 - 1])
def test_split_gives_back_what_frame_was_given(schema_id: int) -> None:
    assert split(frame(schema_id, b"\x00\x01")) == (schema_id, b"\x00\x01")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x01\x00\x00\x00\x01body", "bad_magic"),
        (b"{", "bad_magic"),
        (b"\x00", "truncated"),
        (b"\x00\x00\x00\x01", "truncated"),
    ],
)
def test_what_is_no_frame_is_named_by_its_reason_code(value: bytes | None, reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        split(value)
    assert caught.value.reason == reason


def test_frame_without_body_is_a_frame() -> None:
    assert split(b"\x00\x00\x00\x00\x07") == (7, b"")
