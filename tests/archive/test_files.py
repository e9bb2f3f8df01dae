"""The files of an archive: named by offsets, joined without gaps, whole or not there. No stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.archive import _chunks
from replay.archive_files import (
    Archive,
    ArchiveAway,
    ArchivedRecord,
    ArchiveFailed,
    ArchiveFile,
    file_name,
    gaps,
)

TOPIC = "events.page_views"


def record(offset: int, value: bytes | None = b"v", **other: object) -> ArchivedRecord:
    return ArchivedRecord(offset, 1_000 + offset, b"k", value, **other)  # type: ignore[arg-type]


def file(first: int, following: int) -> ArchiveFile:
    return ArchiveFile(file_name(first), 0, first, following, following - first, 1)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    records = [
        record(0, b"\x00\xff"),
        ArchivedRecord(1, 5, None, None),
        record(4, headers=(("trace", b"\x01"), ("empty", None))),
    ]
    archive.write(0, 0, records, 6)
    assert list(archive.records(0, 0, 6)) == records
    assert (tmp_path / TOPIC / "partition=0" / "00000000000000000000.parquet").is_file()
    assert archive.next_offset(0) == 6
    assert archive.partitions() == [0]


def test_records_are_cut_at_any_offset(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    archive.write(3, 0, [record(n) for n in range(5)], 5)
    archive.write(3, 5, [record(n) for n in range(5, 9)], 9)
    assert [r.offset for r in archive.records(3, 3, 7)] == [3, 4, 5, 6]
    assert archive.newest(3, 7) == 1_006
    assert archive.newest(3, 0) is None


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    archive.write(0, 0, [record(0)], 1)
    with pytest.raises(ArchiveFailed, match="does another process archive"):
        archive.write(0, 0, [record(0), record(1)], 2)


def test_what_a_killed_writer_left_is_no_file(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    archive.write(0, 0, [record(0)], 1)
    half = tmp_path / TOPIC / "partition=0" / "00000000000000000001.writing"
    half.write_bytes(b"PAR1 and no more")
    assert archive.next_offset(0) == 1
    archive.write(0, 1, [record(1)], 2)
    assert [r.offset for r in archive.records(0, 0, 2)] == [0, 1]


def test_a_file_in_between_that_is_gone_is_a_gap(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    for offset in range(3):
        archive.write(0, offset, [record(offset)], offset + 1)
    (tmp_path / TOPIC / "partition=0" / file_name(1)).unlink()
    with pytest.raises(ArchiveFailed, match="offsets 1 to 1 are in no file"):
        list(archive.records(0, 0, 3))


def test_a_store_that_stops_answering_is_told_apart_from_a_bad_file(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    for offset in range(2):
        archive.write(0, offset, [record(offset)], offset + 1)
    second = tmp_path / TOPIC / "partition=0" / file_name(1)
    listed, body = archive.files(0), second.read_bytes()
    records = archive.records(0, 0, 2, listed)
    assert next(records).offset == 0
    second.unlink()
    # It can be listed and not be opened.
    second.mkdir()
    with pytest.raises(ArchiveAway, match=r"can't read .*; the same command goes on"):
        next(records)
    with pytest.raises(ArchiveAway, match="can't read"):
        archive.next_offset(0)
    second.rmdir()
    second.write_bytes(body[:-1])
    for read in (lambda: archive.files(0), lambda: list(archive.records(0, 0, 2, listed))):
        with pytest.raises(ArchiveFailed, match="is no file of an archive") as bad:
            read()
        assert not isinstance(bad.value, ArchiveAway)


def test_gaps_and_overlaps_are_named() -> None:
    assert gaps([file(0, 5), file(5, 9)]) == []
    assert gaps([file(0, 5), file(7, 9), file(8, 9)]) == [
        "offsets 5 to 6 are in no file",
        "offsets 8 to 8 are in two files",
    ]


def test_files_are_bounded_and_the_last_covers_a_hole_at_the_end() -> None:
    records = iter([record(0), record(1), record(5), record(6)])
    chunks = list(_chunks(records, 0, 9, 1_000_000, 3))
    shape = [(first, [r.offset for r in chunk], following) for first, chunk, following in chunks]
    assert shape == [(0, [0, 1, 5], 6), (6, [6], 9)]


def test_a_file_is_full_by_bytes_too() -> None:
    records = iter([record(n, b"x" * 99) for n in range(5)])
    chunks = _chunks(records, 0, 5, 200, 1_000)
    assert [(first, following) for first, _, following in chunks] == [(0, 2), (2, 4), (4, 5)]


def test_a_place_that_pyarrow_does_not_know_is_refused() -> None:
    with pytest.raises(ArchiveFailed, match="no place for an archive"):
        Archive("ftp://somewhere", TOPIC)


def test_what_cannot_be_written_now_may_be_later(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), TOPIC)
    (tmp_path / TOPIC).touch()
    with pytest.raises(ArchiveAway, match="can't write"):
        archive.write(0, 0, [record(0)], 1)
    (tmp_path / TOPIC).unlink()
    archive.write(0, 0, [record(0)], 1)
