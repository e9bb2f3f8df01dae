"""ClickHouse's own compressed blocks, which `compress=1` and `decompress=1` speak of.

A block is a checksum (CityHash128, version 1.0.2, of what follows), a method byte, the sizes of
the compressed data with this nine-byte head and of the plain data, and the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import lz4.block
from backports import zstd
from clickhouse_cityhash.cityhash import CityHash128

from deploy.clickhouse_endpoint.errors import bad_body
from deploy.clickhouse_endpoint.streams import Reader

_PLAIN, _LZ4, _ZSTD = 0x02, 0x82, 0x90
_HEAD = struct.Struct("<BII")
_CHECKSUM = struct.Struct("<QQ")
_MAX_BLOCK_BYTES = 256 * 1024 * 1024


def _checksum(data: bytes) -> bytes:
    number = CityHash128(data)
    # The package makes the hash's first half the number's upper one.
    return _CHECKSUM.pack(number >> 64, number & 0xFFFF_FFFF_FFFF_FFFF)


def compress(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield each of `chunks` as one block."""
    for chunk in chunks:
        if chunk:
            data = lz4.block.compress(chunk, store_size=False)
            block = _HEAD.pack(_LZ4, len(data) + _HEAD.size, len(chunk)) + data
            yield _checksum(block) + block


class BlockReader:
    """The plain data of a stream of blocks; raises QueryError for what is none."""

    def __init__(self, body: Reader) -> None:
        self._body = body
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, nothing at the end."""
        if not self._rest:
            self._rest = self._block()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _block(self) -> bytes:
        checksum = self._exactly(_CHECKSUM.size, may_end=True)
        if not checksum:
            return b""
        head = self._exactly(_HEAD.size)
        method, packed, plain = _HEAD.unpack(head)
        if packed < _HEAD.size or max(packed, plain) > _MAX_BLOCK_BYTES:
            raise bad_body(f"A compressed block states a size of {packed} or {plain} bytes.")
        data = self._exactly(packed - _HEAD.size)
        if _checksum(head + data) != checksum:
            raise bad_body("A compressed block does not have its checksum.")
        return _plain(method, data, plain)

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        parts = []
        missing = size
        while missing and (part := self._body.read(missing)):
            parts.append(part)
            missing -= len(part)
        if missing and not (may_end and missing == size):
            raise bad_body("The body ends amid a compressed block.")
        return b"".join(parts)


def _zstd(data: bytes, size: int) -> bytes:
    frame = zstd.ZstdDecompressor()
    # One more, so that what exceeds the stated size shows.
    plain = frame.decompress(data, max_length=size + 1)
    if len(plain) == size and not frame.eof:
        raise bad_body("A compressed block ends amid its data.")
    return plain


def _plain(method: int, data: bytes, size: int) -> bytes:
    """Return the `size` bytes that a block's `data` stands for, and never hold many more."""
    try:
        if method == _LZ4:
            plain = bytes(lz4.block.decompress(data, uncompressed_size=size))
        elif method == _ZSTD:
            plain = _zstd(data, size)
        elif method == _PLAIN:
            plain = data
        else:
            raise bad_body(f"A compressed block has the unknown method {method:#x}.")
    except (lz4.block.LZ4BlockError, zstd.ZstdError) as error:
        raise bad_body(f"A compressed block is damaged: {error}") from None
    if len(plain) != size:
        raise bad_body(f"A compressed block does not have the {size} bytes that it states.")
    return plain
