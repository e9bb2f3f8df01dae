"""Compressed bodies by Content-Encoding and Accept-Encoding. No I/O but the streams passed in."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import lz4.frame
from backports import zstd

from deploy.clickhouse_endpoint.errors import QueryError, bad_body, not_implemented
from deploy.clickhouse_endpoint.streams import Reader

# In the order of what they cost here; the first that a client knows is taken.
ENCODINGS = ("lz4", "zstd", "gzip", "deflate")


def negotiate(accepted: str) -> str | None:
    """Return the encoding to answer in, from an Accept-Encoding header; None for plain."""
    known = {}
    for part in accepted.lower().split(","):
        name, _, quality = part.partition(";")
        known[name.strip()] = quality.replace(" ", "") not in ("q=0", "q=0.0")
    return next((name for name in ENCODINGS if known.get(name)), None)


def compress(encoding: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks` in `encoding`, as one frame."""
    step, finish = _compressor(encoding)
    for chunk in chunks:
        if packed := step(chunk):
            yield packed
    yield finish()


def _compressor(encoding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if encoding == "lz4":
        return _lz4_compressor()
    if encoding == "zstd":
        packer = zstd.ZstdCompressor(level=1)
        return packer.compress, packer.flush
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return deflater.compress, deflater.flush


def _lz4_compressor() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    packer = lz4.frame.LZ4FrameCompressor()
    head = bytes(packer.begin())

    def step(chunk: bytes) -> bytes:
        nonlocal head
        packed, head = head + bytes(packer.compress(chunk)), b""
        return packed

    return step, lambda: head + bytes(packer.flush())


class Decoded:
    """A body without its Content-Encoding; raises QueryError for damaged or unknown data."""

    def __init__(self, encoding: str, body: Reader) -> None:
        self._stream: Any = _decoder(encoding, body)

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, nothing at the end."""
        try:
            return bytes(self._stream.read(size))
        except QueryError:
            raise
        except (OSError, EOFError, RuntimeError, ValueError, zlib.error, zstd.ZstdError) as error:
            raise bad_body(f"The body does not have its Content-Encoding: {error}") from None


def _decoder(encoding: str, body: Reader) -> Any:
    if encoding in ("", "identity"):
        return body
    if encoding == "lz4":
        return lz4.frame.LZ4FrameFile(body)
    if encoding == "zstd":
        return zstd.ZstdFile(body)  # type: ignore[call-overload]
    if encoding in ("gzip", "x-gzip"):
        return gzip.GzipFile(fileobj=body)  # type: ignore[call-overload]
    if encoding == "deflate":
        return _Inflated(body)
    raise not_implemented(f"Unknown compression method: {encoding}")


class _Inflated:
    """The plain data of a zlib stream."""

    def __init__(self, body: Reader) -> None:
        self._body = body
        self._inflater = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        while not self._inflater.eof:
            data = self._inflater.unconsumed_tail or self._body.read(size)
            if not data:
                raise EOFError("the stream breaks off")
            if plain := self._inflater.decompress(data, size):
                return plain
        return b""
