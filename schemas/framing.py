"""The Confluent frame around an Avro body: a zero byte, the schema's id, the body. No I/O."""

from __future__ import annotations

import struct
from typing import Literal

MAGIC = 0
HEADER_BYTES = 5

_HEADER = struct.Struct(">bI")

FrameFault = Literal["empty", "truncated", "bad_magic"]


class BadFrame(ValueError):
    """Bytes that are no frame; `reason` is the code that dead letters carry."""

    def __init__(self, reason: FrameFault, detail: str) -> None:
        super().__init__(detail)
        self.reason: FrameFault = reason


def header(schema_id: int) -> bytes:
    """Return the five bytes that precede a body written with schema `schema_id`."""
    return _HEADER.pack(MAGIC, schema_id)


def frame(schema_id: int, payload: bytes) -> bytes:
    """Return `payload`, an Avro body, with its header."""
    return _HEADER.pack(MAGIC, schema_id) + payload


def split(frame: bytes | None) -> tuple[int, bytes]:
    """Return schema id and body of `frame`, or raise `BadFrame`."""
    if not frame:
        raise BadFrame("empty", "the value is null or has no bytes.")
    if frame[0] != MAGIC:
        raise BadFrame("bad_magic", f"the first byte is 0x{frame[0]:02x} and not 0x00.")
    if len(frame) < HEADER_BYTES:
        raise BadFrame("truncated", f"{len(frame)} bytes are fewer than a header's {HEADER_BYTES}.")
    _, schema_id = _HEADER.unpack_from(frame)
    return schema_id, frame[HEADER_BYTES:]
