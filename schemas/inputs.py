"""Read events from files: access logs, JSON lines, Avro containers. Each with its coordinates."""

from __future__ import annotations

import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from schemas.streams import PAGE_VIEWS, SCHEMA_DIR, Stream
from schemas.values import BadValue, conform, epoch_ms

SAMPLE = SCHEMA_DIR / "samples" / "access.log.gz"
STANDARD_INPUT = Path("-")

_GZIP_MAGIC = b"\x1f\x8b"
_AVRO_MAGIC = b"Obj\x01"
# bzip2, xz, Zstandard and ZIP.
_PACKED = (b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")
# A target may hold spaces where a client broke the rules, and HTTP/0.9 sends no version.
_REQUEST = re.compile(r"(?P<method>[A-Za-z-]+) (?P<target>\S.*?)(?: HTTP/[0-9.]+)?")
_MAX_LINE_BYTES = 4 * 1024 * 1024


class Format(StrEnum):
    """Kinds of files that hold events."""

    ACCESS_LOG = "access-log"
    JSON_LINES = "json-lines"
    AVRO = "avro"


class InputError(Exception):
    """A file that can't be read as events at all."""


@dataclass(frozen=True, slots=True)
class Good:
    """An event of the stream's schema, times as epoch milliseconds, and where it stood."""

    where: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """A piece of input that is no event, where it stood and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Source:
    """An open input: its decompressed bytes, its name, and how far its file has been read."""

    name: str
    data: BufferedReader
    raw: IO[bytes]
    size: int | None

    @property
    def read_bytes(self) -> int:
        """Bytes of the file, as stored, that have been read."""
        return self.raw.tell() if self.size is not None else 0


@contextmanager
def open_input(path: Path) -> Iterator[Source]:
    """Open `path` ("-" for standard input), through gzip where it is compressed."""
    if path == STANDARD_INPUT:
        yield Source("stdin", _decompressed(sys.stdin.buffer), sys.stdin.buffer, None)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}.") from error
    with file:
        yield Source(path.name, _decompressed(file), file, path.stat().st_size)


def detect_format(source: Source) -> Format:
    """Tell the format from the first bytes, which are left to be read."""
    with _whole(source):
        start = source.data.peek(4096)
    if start.startswith(_AVRO_MAGIC):
        return Format.AVRO
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    # An export without events may be of any stream, and an access log may not.
    if not text or text.startswith(b"{"):
        return Format.JSON_LINES
    first_line = text.split(b"\n", 1)[0]
    # What follows would pass for a bad line of an access log wherever it has a quote.
    if start.startswith(_PACKED):
        raise InputError(f"{source.name} is packed, and not with gzip; unpack it first.")
    if b"\0" in first_line:
        raise InputError(f"{source.name} is no text in UTF-8; convert it first.")
    if text.startswith(b"["):
        raise InputError(
            f"{source.name} holds a JSON array; write one event a line, as jq -c '.[]' does."
        )
    if b'"' in first_line:
        return Format.ACCESS_LOG
    raise InputError(
        f"can't tell the format of {source.name}; name it with --format "
        f"({', '.join(each.value for each in Format)})."
    )


def read_events(
    source: Source, stream: Stream, file_format: Format, *, ignore_unknown: bool = False
) -> Iterator[Good | Bad]:
    """Yield each event of `source`, or why a piece of it is none, in the file's order.

    `ignore_unknown` passes over JSON fields that the schema does not have. Raises `InputError`
    where nothing further can be read.
    """
    with _whole(source):
        if file_format is Format.ACCESS_LOG:
            yield from _read_access_log(source, stream)
        elif file_format is Format.JSON_LINES:
            yield from _read_json_lines(source, stream, ignore_unknown)
        else:
            yield from _read_avro(source, stream)


def page_view_of(entry: Any, event_id: str) -> dict[str, Any]:
    """Return the page view in `entry`, one parsed line of an access log.

    The visitor is the client's address and the page the path without its query string. Raises
    `BadValue` where the request names no page.
    """
    request = _REQUEST.fullmatch(entry.request_line or "")
    path = _path_of(request["target"]) if request else ""
    if request is None or not path:
        raise BadValue("request", f"is {entry.request_line!r} and names no page")
    # The common format has no headers at all.
    headers = getattr(entry, "headers_in", {})
    return {
        "event_id": event_id,
        "event_time": epoch_ms(entry.request_time),
        "user_id": entry.remote_host,
        "page_id": path,
        "duration_ms": None,
        "status": entry.final_status,
        "method": request["method"],
        "bytes_sent": entry.bytes_sent,
        "country": None,
        "referrer": headers.get("Referer"),
        "user_agent": headers.get("User-Agent"),
    }


def _read_access_log(source: Source, stream: Stream) -> Iterator[Good | Bad]:
    if stream.name != PAGE_VIEWS.name:
        raise InputError(
            f"an access log holds {PAGE_VIEWS.name} and no {stream.name}; send JSON lines or Avro."
        )
    from apachelogs import InvalidEntryError

    parse = _log_parser()
    # The same line under the same name is the same request, however often it is sent.
    name = source.name.removesuffix(".gz")
    for where, number, raw in _lines(source):
        text = raw.decode("utf-8", "replace")
        digest = blake2b(f"{name}\n{number}\n{text}".encode(), digest_size=16).hexdigest()
        try:
            yield Good(where, page_view_of(parse(text), digest))
        except InvalidEntryError:
            yield Bad(where, f"no line of the common or combined log format: {_shown(text)}")
        except (BadValue, ValueError) as error:
            yield Bad(where, f"{error}: {_shown(text)}")


def _log_parser() -> Callable[[str], Any]:
    from apachelogs import COMBINED, COMMON, InvalidEntryError, LogParser

    combined, common = (
        LogParser(each, encoding="utf-8", errors="replace") for each in (COMBINED, COMMON)
    )

    def parse(line: str) -> Any:
        try:
            return combined.parse(line)
        except InvalidEntryError:
            return common.parse(line)

    return parse


def _read_json_lines(source: Source, stream: Stream, ignore_unknown: bool) -> Iterator[Good | Bad]:
    for where, _, raw in _lines(source):
        try:
            document = json.loads(raw)
            yield Good(where, conform(document, stream.schema, ignore_unknown=ignore_unknown))
        except BadValue as error:
            yield Bad(where, str(error))
        except (ValueError, RecursionError) as error:
            yield Bad(where, f"no JSON: {error}")


def _read_avro(source: Source, stream: Stream) -> Iterator[Good | Bad]:
    import fastavro

    number = 0
    try:
        for number, record in enumerate(fastavro.reader(source.data, stream.schema), start=1):
            where = f"{source.name}, record {number}"
            try:
                yield Good(where, conform(record, stream.schema))
            except BadValue as error:
                yield Bad(where, str(error))
    except (EOFError, OSError, zlib.error):
        raise
    # Damage makes it raise whatever its bytes lead to; a time beyond the year 9999 overflows.
    except Exception as error:
        raise InputError(
            f"{source.name} can't be read as {stream.name} after record {number}: {error}."
        ) from error


@contextmanager
def _whole(source: Source) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{source.name} is cut off or damaged: {error}.") from error


def _lines(source: Source) -> Iterator[tuple[str, int, bytes]]:
    number = 0
    while line := source.data.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise InputError(
                f"{source.name}, line {number} exceeds {_MAX_LINE_BYTES} bytes; is it text?"
            )
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if stripped := line.rstrip(b"\r\n"):
            yield f"{source.name}, line {number}", number, stripped


def _decompressed(file: IO[bytes]) -> BufferedReader:
    buffered = file if isinstance(file, BufferedReader) else BufferedReader(cast(Any, file))
    if buffered.peek(2).startswith(_GZIP_MAGIC):
        return BufferedReader(cast(Any, gzip.GzipFile(fileobj=buffered)), 256 * 1024)
    return buffered


def _path_of(target: str) -> str:
    """Return the path of a request's target, which proxies write as a whole URL."""
    if target.startswith("/"):
        return target.partition("?")[0].partition("#")[0]
    try:
        return urlsplit(target).path or ("/" if "://" in target else "")
    except ValueError:
        return ""


def _shown(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
