"""Keep an events topic in an archive, and hold the archive against the topic.

Each partition is read from the offset with which its archive ends up to its last stable offset,
one partition after the other, and written in files of bounded size. A killed run leaves whole files
only, and the next goes on after them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from replay.archive_files import Archive, ArchivedRecord, ArchiveFailed, gaps
from schemas.reading import offset_of, read_committed
from schemas.topics import begin_offsets, end_offsets

FILE_BYTES = 32 * 1024 * 1024
FILE_RECORDS = 200_000

Progress = Callable[[int, int], None]
"""Told how many offsets of how many are archived or compared."""


@dataclass(frozen=True)
class PartitionArchive:
    """What is archived of a partition, beside what the topic holds; None where nothing is."""

    partition: int
    first: int | None
    next: int | None
    records: int
    files: int
    size: int
    topic_first: int
    topic_next: int
    problems: tuple[str, ...] = ()
    compared: int = 0

    @property
    def behind(self) -> int:
        """How many offsets of the topic are not archived yet."""
        return self.topic_next - max(self.next or 0, self.topic_first)


def status(kafka: Mapping[str, Any], topic: str, archive: Archive) -> list[PartitionArchive]:
    """Return what the archive holds of each partition, by its files' footers."""
    begin = begin_offsets(kafka, topic)
    end = end_offsets(kafka, topic, read_committed=True)
    return [_status(archive, part, begin[part], end[part]) for part in begin]


def _status(archive: Archive, partition: int, begin: int, end: int) -> PartitionArchive:
    files = archive.files(partition)
    problems = gaps(files)
    if files and files[-1].next < begin:
        problems.append(_lost(files[-1].next, begin))
    if files and files[-1].next > end:
        problems.append(_anew(files[-1].next, end))
    return PartitionArchive(
        partition=partition,
        first=files[0].first if files else None,
        next=files[-1].next if files else None,
        records=sum(file.records for file in files),
        files=len(files),
        size=sum(file.size for file in files),
        topic_first=begin,
        topic_next=end,
        problems=tuple(problems),
    )


def _lost(archived: int, begin: int) -> str:
    return f"offsets {archived} to {begin - 1} are in neither the archive nor the topic"


def _anew(archived: int, end: int) -> str:
    return f"the archive goes to offset {archived} and the topic to {end}: it is another topic"


def catch_up(
    kafka: Mapping[str, Any],
    topic: str,
    archive: Archive,
    progress: Progress = lambda done, total: None,
    *,
    file_bytes: int = FILE_BYTES,
    file_records: int = FILE_RECORDS,
) -> int:
    """Archive all that is committed in `topic` and return how many offsets were added.

    An archive that is empty begins where the topic begins. Raises `ArchiveFailed` where the
    topic lacks what the archive would need next.
    """
    begin = begin_offsets(kafka, topic)
    ends = end_offsets(kafka, topic, read_committed=True)
    starts = {part: _start(archive, topic, part, begin[part], ends[part]) for part in begin}
    total = sum(ends[part] - start for part, start in starts.items())
    done = 0
    for part, start in starts.items():
        records = read_records(kafka, topic, part, start, ends[part])
        chunks = _chunks(records, start, ends[part], file_bytes, file_records)
        for first, chunk, next_offset in chunks:
            archive.write(part, first, chunk, next_offset)
            done += next_offset - first
            progress(done, total)
    return done


def _start(archive: Archive, topic: str, partition: int, begin: int, end: int) -> int:
    archived = archive.next_offset(partition)
    if archived is None:
        return begin
    if archived < begin:
        raise ArchiveFailed(
            f"{topic}[{partition}]: {_lost(archived, begin)}. Archive into another place with "
            "--to, or take that partition's files away."
        )
    if archived > end:
        raise ArchiveFailed(f"{topic}[{partition}]: {_anew(archived, end)}; choose another --to.")
    return archived


def _chunks(
    records: Iterator[ArchivedRecord], start: int, end: int, most_bytes: int, most_records: int
) -> Iterator[tuple[int, list[ArchivedRecord], int]]:
    """Yield (first offset, records, next offset) of each file; the last one covers up to `end`."""
    chunk: list[ArchivedRecord] = []
    first, size = start, 0
    for record in records:
        chunk.append(record)
        size += record.size
        if size >= most_bytes or len(chunk) >= most_records:
            yield first, chunk, record.offset + 1
            first, chunk, size = record.offset + 1, [], 0
    if first < end:
        yield first, chunk, end


def verify(
    kafka: Mapping[str, Any],
    topic: str,
    archive: Archive,
    progress: Progress = lambda done, total: None,
) -> list[PartitionArchive]:
    """Read every archived record, and compare those that the topic still holds with it."""
    found = status(kafka, topic, archive)
    total = sum((one.next or 0) - (one.first or 0) for one in found)
    done, result = 0, []
    for one in found:
        problems, compared = _verify(kafka, topic, archive, one)
        done += (one.next or 0) - (one.first or 0)
        progress(done, total)
        own = {**vars(one), "problems": problems, "compared": compared}
        result.append(PartitionArchive(**own))
    return result


def _verify(
    kafka: Mapping[str, Any], topic: str, archive: Archive, one: PartitionArchive
) -> tuple[tuple[str, ...], int]:
    if one.first is None or one.next is None or one.problems:
        return one.problems, 0
    held = max(one.first, one.topic_first)
    last = one.first - 1
    for record in archive.records(one.partition, one.first, held):
        if record.offset <= last:
            return (f"offset {record.offset} comes after {last}",), 0
        last = record.offset
    if one.next <= held:
        return (), 0
    pairs = zip_longest(
        archive.records(one.partition, held, one.next),
        read_records(kafka, topic, one.partition, held, one.next),
    )
    compared = 0
    for archived, original in pairs:
        if archived != original:
            offset = (archived or original).offset if archived or original else held
            return (f"offset {offset} is another in the archive than in the topic",), compared
        compared += 1
    return (), compared


def read_records(
    kafka: Mapping[str, Any], topic: str, partition: int, start: int, end: int
) -> Iterator[ArchivedRecord]:
    """Yield the committed records of offsets `start` up to `end`, which must be stable already."""
    for messages in read_committed(kafka, topic, {partition: (start, end)}):
        yield from map(_record, messages)


def _record(message: Message) -> ArchivedRecord:
    _, timestamp = message.timestamp()
    headers = tuple(message.headers() or ())
    return ArchivedRecord(offset_of(message), timestamp, message.key(), message.value(), headers)


@contextmanager
def only_archiver(home: Path, topic: str) -> Iterator[None]:
    """Hold the right to archive `topic` on this machine, until the block ends or is killed."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"archive-{topic}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveFailed(f"another process archives {topic} already.") from error
        yield
