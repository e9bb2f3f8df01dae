"""Compressed bodies: Content-Encoding both ways. No I/O but the streams passed in."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import lz4.frame
from backports import zstd

# In the order of what they cost here; the first that a client knows is taken.
ENCODINGS = ("lz4", "zstd", "gzip", "deflate")


def negotiate(accepted: str) -> str | None:
    """Return the encoding to answer in, from an Accept-Encoding header; None for plain."""
    names = {part.split(";")[0].strip().lower() for part in accepted.split(",")}
    return next((name for name in ENCODINGS if name in names), None)


def compress(encoding: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks` in `encoding`."""
    step, finish = _compressor(encoding)
    for chunk in chunks:
        if packed := step(chunk):
            yield packed
    yield finish()


def _compressor(encoding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if encoding == "lz4":
        context = lz4.frame.LZ4FrameCompressor()
        head = context.begin()

        def step(chunk: bytes) -> bytes:
            nonlocal head
            packed, head = head + bytes(context.compress(chunk)), b""
            return packed

        return step, lambda: head + bytes(context.flush())
    if encoding == "zstd":
        packer = zstd.ZstdCompressor(level=1)
        return packer.compress, packer.flush
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    return deflater.compress, deflater.flush


def decoded(encoding: str, body: BinaryIO) -> BinaryIO:
    """Return a stream of `body`'s bytes without its Content-Encoding.

    Raises LookupError for an encoding that is not known here.
    """
    if encoding in ("", "identity"):
        return body
    if encoding == "lz4":
        return lz4.frame.LZ4FrameFile(body)  # type: ignore[no-any-return]
    if encoding == "zstd":
        return zstd.ZstdFile(body)
    if encoding in ("gzip", "x-gzip"):
        return gzip.GzipFile(fileobj=body)
    if encoding == "deflate":
        return io.BytesIO(zlib.decompress(body.read()))
    raise LookupError(encoding)
