"""The files of an archive: Parquet, one run of offsets of one topic partition in each.

A file is named by the offset that it begins with, and its footer says with which the next one must
begin. The archive's files alone tell how far it has come; nothing else keeps count. Offsets without
a record, which transactions leave behind, lie within a file's run and are no gap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

Headers = tuple[tuple[str, bytes | None], ...]

_NAME = re.compile(r"(\d{20})\.parquet")
_PARTITION = re.compile(r"partition=(\d+)")
_NEXT_OFFSET = b"kappa.next_offset"
_ROW_GROUP = 16_384
_SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field(
            "headers",
            pa.list_(
                pa.struct([pa.field("name", pa.string()), pa.field("value", pa.binary())]),
            ),
        ),
    ]
)


class ArchiveFailed(Exception):
    """An archive that can't be read, written or trusted."""


class ArchiveAway(ArchiveFailed):
    """An archive whose store does not answer; what was read or written of it so far is right.

    `happened` says so without how to go on.
    """

    def __init__(self, happened: str) -> None:
        super().__init__(f"{happened}; the same command goes on.")
        self.happened = happened


@dataclass(frozen=True, slots=True)
class ArchivedRecord:
    """One record as it lies in its topic partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        own = len(self.key or b"") + len(self.value or b"")
        return own + sum(len(name) + len(value or b"") for name, value in self.headers)


@dataclass(frozen=True)
class ArchiveFile:
    """One file and the offsets it covers: from `first` up to, without, `next`."""

    path: str
    partition: int
    first: int
    next: int
    records: int
    size: int


def file_name(first: int) -> str:
    """Return the name of the file that begins with offset `first`; names sort as offsets do."""
    return f"{first:020d}.parquet"


def gaps(files: Sequence[ArchiveFile]) -> list[str]:
    """Return what is wrong with the order of one partition's files; nothing where they join."""
    found = []
    for before, after in pairwise(files):
        if after.first > before.next:
            found.append(f"offsets {before.next} to {after.first - 1} are in no file")
        elif after.first < before.next:
            found.append(f"offsets {after.first} to {before.next - 1} are in two files")
    return found


def to_parquet(records: Sequence[ArchivedRecord], next_offset: int) -> pa.Buffer:
    """Return the bytes of a file with `records`, after which the archive goes on at an offset."""
    columns: dict[str, list[Any]] = {
        "offset": [record.offset for record in records],
        "timestamp_ms": [record.timestamp_ms for record in records],
        "key": [record.key for record in records],
        "value": [record.value for record in records],
        "headers": [
            [{"name": name, "value": value} for name, value in record.headers] or None
            for record in records
        ],
    }
    schema = _SCHEMA.with_metadata({_NEXT_OFFSET: str(next_offset).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table(columns, schema=schema), sink, compression="zstd", row_group_size=_ROW_GROUP
    )
    return sink.getvalue()


def from_batch(batch: pa.RecordBatch) -> Iterator[ArchivedRecord]:
    """Yield the records of one batch of a file."""
    for row in batch.to_pylist():
        headers = tuple((one["name"], one["value"]) for one in row.pop("headers") or ())
        yield ArchivedRecord(**row, headers=headers)


class Archive:
    """The archive of one topic below a URL: a local path, or a URI that pyarrow.fs knows (s3://…).

    S3's address and region are those of pyarrow: parameters of the URI such as
    `?endpoint_override=`, or AWS_… in the environment. Credentials come from the environment.
    """

    def __init__(self, url: str, topic: str) -> None:
        if urlsplit(url).password:
            # The URL is printed, and kept in a replay's plan.
            raise ArchiveFailed(
                "the archive's URL holds a password; give credentials as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY in the environment."
            )
        location = url if "://" in url else str(Path(url).expanduser().resolve())
        try:
            self._fs, root = fs.FileSystem.from_uri(location)
        except (OSError, ValueError) as error:
            raise ArchiveFailed(f"{url} is no place for an archive: {error}.") from error
        self.url = url
        self._folder = f"{root.rstrip('/')}/{topic}"

    def partitions(self) -> list[int]:
        """Return the partitions that have files."""
        names = [_PARTITION.fullmatch(info.base_name) for info in self._list(self._folder)]
        return sorted(int(name[1]) for name in names if name)

    def files(self, partition: int) -> list[ArchiveFile]:
        """Return the files of a partition in the order of their offsets."""
        return [self._opened(partition, info) for info in self._found(partition)]

    def next_offset(self, partition: int) -> int | None:
        """Return the first offset that is not archived, or None where nothing is."""
        found = self._found(partition)
        return self._opened(partition, found[-1]).next if found else None

    def write(
        self, partition: int, first: int, records: Sequence[ArchivedRecord], next_offset: int
    ) -> None:
        """Add a file that covers `first` up to `next_offset`, whole or not at all.

        Raises `ArchiveFailed` where a file begins there already: then somebody else archives too;
        `ArchiveAway` where it can't be written.
        """
        path = f"{self._partition_folder(partition)}/{file_name(first)}"
        body = to_parquet(records, next_offset)
        try:
            if self._fs.get_file_info(path).type != fs.FileType.NotFound:
                raise ArchiveFailed(f"{path} is there already; does another process archive, too?")
            self._put(path, body)
        except OSError as error:
            raise ArchiveAway(f"can't write {path}: {error}") from error

    def records(
        self, partition: int, start: int, end: int, files: Sequence[ArchiveFile] | None = None
    ) -> Iterator[ArchivedRecord]:
        """Yield the records of offsets `start` up to `end`; raises `ArchiveFailed` at a gap.

        Whoever has just listed the partition's `files` may give them.
        """
        for file in self._covering(partition, start, end, files):
            with self._read(file.path, whole=True) as source:
                for batch in pq.ParquetFile(source).iter_batches(batch_size=4096):
                    yield from (r for r in from_batch(batch) if start <= r.offset < end)

    def newest(self, partition: int, end: int) -> int | None:
        """Return the newest timestamp, epoch ms, before offset `end`, or None where none is."""
        times = [
            int(stamp)
            for file in self._covering(partition, 0, end)
            for stamp in self._timestamps(file, end)
        ]
        return max(times, default=None)

    def _timestamps(self, file: ArchiveFile, end: int) -> Iterable[int]:
        import pyarrow.compute as pc

        with self._read(file.path, whole=True) as source:
            for batch in pq.ParquetFile(source).iter_batches(columns=["offset", "timestamp_ms"]):
                chosen = batch.filter(pc.less(batch.column(0), end))
                if chosen.num_rows:
                    yield pc.max(chosen.column(1)).as_py()

    def _covering(
        self, partition: int, start: int, end: int, files: Sequence[ArchiveFile] | None = None
    ) -> list[ArchiveFile]:
        listed = self.files(partition) if files is None else files
        found = [f for f in listed if f.next > start and f.first < end]
        if wrong := gaps(found):
            raise ArchiveFailed(f"{self._partition_folder(partition)}: {'; '.join(wrong)}.")
        return found

    def _found(self, partition: int) -> list[Any]:
        listed = self._list(self._partition_folder(partition))
        return sorted(
            (info for info in listed if _NAME.fullmatch(info.base_name)),
            key=lambda info: str(info.base_name),
        )

    def _list(self, folder: str) -> list[Any]:
        try:
            listed: list[Any] = self._fs.get_file_info(
                fs.FileSelector(folder, allow_not_found=True)
            )
        except OSError as error:
            raise ArchiveAway(f"can't list the archive at {self.url}: {error}") from error
        return listed

    @contextmanager
    def _read(self, path: str, *, whole: bool = False) -> Iterator[Any]:
        """Give a file to read; one that was read `whole` can fail only for what stands in it."""
        try:
            with self._fs.open_input_file(path) as source:
                if whole:
                    body = source.read_buffer()
                else:
                    yield source
        except OSError as error:
            raise ArchiveAway(f"can't read {path}: {error}") from error
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(path, error) from error
        if whole:
            try:
                yield pa.BufferReader(body)
            except (OSError, KeyError, ValueError, TypeError) as error:
                raise _damaged(path, error) from error

    def _opened(self, partition: int, info: Any) -> ArchiveFile:
        with self._read(info.path) as source:
            footer = pq.read_metadata(source)
            next_offset = int(footer.metadata[_NEXT_OFFSET])
        first = int(info.base_name.split(".")[0])
        return ArchiveFile(info.path, partition, first, next_offset, footer.num_rows, info.size)

    def _partition_folder(self, partition: int) -> str:
        return f"{self._folder}/partition={partition}"

    def _put(self, path: str, body: pa.Buffer) -> None:
        if not isinstance(self._fs, fs.LocalFileSystem):
            # An object store shows an object when its upload is complete, and not before.
            with self._fs.open_output_stream(path) as target:
                target.write(body)
            return
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_suffix(".writing")
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            # Kafka may drop the records once they are here, so here must outlive a power cut.
            os.fsync(file.fileno())
        temporary.replace(final)
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _damaged(path: str, error: Exception) -> ArchiveFailed:
    return ArchiveFailed(f"{path} is no file of an archive: {error}.")
