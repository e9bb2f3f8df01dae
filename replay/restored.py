"""A rebuild's copy of an events topic that lacks its first events: archive, then topic.

What Kafka has dropped can't be put back into its topic. So the events up to the pinned offsets are
written once more, into a topic of the replay's own, each at the partition and offset that it had.
The rebuild reads that copy. Then it stops with a savepoint, and goes on from it in the stream's own
topic at exactly the pinned offsets: its panes come from the copy, what follows from the topic, and
no event from both. The copy is dropped; nothing has to keep it up.

A HybridSource would switch without a stop, but Flink gives its readers no partitions and offsets
in SQL or Python. A copy that a mirror keeps up for good would be a second source of truth.

An offset that no record has, in a file's run of offsets or in the topic, is what transactions left:
the copy has none there either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from replay.archive import read_records
from replay.archive_files import (
    Archive,
    ArchiveAway,
    ArchivedRecord,
    ArchiveFailed,
    ArchiveFile,
)
from replay.copying import Copier
from schemas.streams import Stream
from schemas.topics import (
    begin_offsets,
    delete_topics,
    end_offsets,
    ensure_copy_topic,
    partition_count,
)

# A killed run may have left its last transaction half done, which is shorter.
_TAIL = 100

Progress = Callable[[int], None]
"""Told how many records the copy holds."""


def copy_topic(stream: Stream, version: int) -> str:
    """Return the topic with the copy for the rebuild of `version`."""
    return stream.prefixed(f"restored.{stream.name}.v{version}")


def covered(archive: Archive, begin: Mapping[int, int]) -> dict[int, int]:
    """Return by partition how far its archive goes from offset zero without a gap.

    Only partitions that begin later than that in the topic are looked at.
    """
    return {
        part: _reached(archive.files(part), 0) if first > 0 else 0 for part, first in begin.items()
    }


def _reached(files: Sequence[ArchiveFile], start: int) -> int:
    """Return up to which offset a partition's `files` cover all offsets from `start` on."""
    reached = start
    for file in files:
        if file.first <= reached < file.next:
            reached = file.next
    return reached


def restore(
    kafka: Mapping[str, Any],
    topic: str,
    archive: Archive,
    copy: str,
    pinned: Mapping[int, int],
    progress: Progress = lambda offsets: None,
) -> int:
    """Let `copy` hold every event of `topic` before `pinned`, at its own offset.

    Returns how many offsets these are. Goes on where a killed run stopped. Raises `ArchiveAway`
    where the archive's store does not answer, and `ArchiveFailed` where the copy came apart from
    the topic; then it is gone again.
    """
    original = _Original(kafka, topic, archive)
    _ensure(kafka, topic, copy)
    copier = Copier(kafka, copy)
    there = end_offsets(kafka, copy)
    original.refuse_lost({part: end for part, end in pinned.items() if there[part] < end})
    if not all(original.goes_on(copy, part, there[part], end) for part, end in pinned.items()):
        delete_topics(kafka, [copy])
        _ensure(kafka, topic, copy)
        copier, there = Copier(kafka, copy), end_offsets(kafka, copy)
    done = sum(there.values())
    try:
        for part, end in pinned.items():
            records = original.records(part, there[part], end)
            for offset in copier.write(part, records, there[part], end):
                progress(done + offset - there[part])
            done += end - there[part]
    except ArchiveAway:
        raise
    except ArchiveFailed:
        # Whatever stands in it may be out of step.
        delete_topics(kafka, [copy])
        raise
    return done


def _ensure(kafka: Mapping[str, Any], topic: str, copy: str) -> None:
    ensure_copy_topic(kafka, copy, partition_count(kafka, topic))


class _Original:
    """What is to be copied: the archive as far as it goes, then the topic."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, archive: Archive) -> None:
        self._kafka, self._topic, self._archive = kafka, topic, archive

    def records(self, partition: int, start: int, end: int) -> Iterator[ArchivedRecord]:
        """Return the records of offsets `start` up to `end`."""
        # Each listing opens every file.
        files = self._archive.files(partition)
        cut = min(_reached(files, start), end)
        return chain(
            self._archive.records(partition, start, cut, files),
            read_records(self._kafka, self._topic, partition, cut, end),
        )

    def refuse_lost(self, pinned: Mapping[int, int]) -> None:
        """Raise `ArchiveFailed` where neither archive nor topic has all offsets before `pinned`."""
        begin = begin_offsets(self._kafka, self._topic)
        for part, end in pinned.items():
            reached = _reached(self._archive.files(part), 0)
            if reached < min(begin[part], end):
                raise ArchiveFailed(
                    f"{self._topic}[{part}]: offsets {reached} to {begin[part] - 1} are in neither "
                    "the archive nor the topic any more. `kappa replay abort`, then build anew "
                    "with --from-earliest."
                )

    def goes_on(self, copy: str, partition: int, at: int, end: int) -> bool:
        """Tell whether a copy that ends at `at` is right so far and can be led to `end`."""
        if at == 0:
            return True
        first = max(begin_offsets(self._kafka, copy)[partition], at - _TAIL)
        copied = read_records(self._kafka, copy, partition, first, at)
        if _offsets(copied) != _offsets(self.records(partition, first, at)):
            return False
        following = next(self.records(partition, at, end), None)
        # Where one offset is left free, its marker belongs to the record before it.
        return (following.offset if following else end) - at != 1


def _offsets(records: Iterator[ArchivedRecord]) -> list[int]:
    return [record.offset for record in records]
