"""`kappa archive run --follow` goes on past outages, and tells what each look added."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from deploy.console import CommandError
from replay.archive_commands import run_command
from replay.archive_files import ArchiveAway, ArchiveFailed
from schemas.topics import KafkaUnavailable

Looks = list[int | Exception]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each pause would have been."""
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, looks: Looks, *, as_json: bool = True
) -> None:
    coming: Iterator[int | Exception] = iter(looks)

    def look(*_: object) -> int:
        found = next(coming, None)
        if found is None:
            raise KeyboardInterrupt
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setenv("KAPPA_HOME", str(tmp_path))
    monkeypatch.setattr("replay.archive.catch_up", look)
    run_command("page_views", once=False, every=5.0, to=str(tmp_path / "to"), as_json=as_json)


def test_an_outage_is_told_of_and_passes(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pauses: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    looks: Looks = [3, KafkaUnavailable("Kafka is away."), ArchiveAway("the store is away"), 2, 0]
    with pytest.raises(KeyboardInterrupt):
        follow(monkeypatch, tmp_path, looks)
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert lines == [
        {"stream": "page_views", "to": str(tmp_path / "to"), "added": added} for added in (3, 2, 0)
    ]
    assert "Kafka is away. Next try in 5 s." in printed.err
    assert "the store is away. Next try in 5 s." in printed.err
    assert pauses == [5.0] * 5


def test_people_are_told_of_each_look_too(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pauses: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        follow(monkeypatch, tmp_path, [1_234], as_json=False)
    assert f"  1,234 offsets added to {tmp_path / 'to'}\n" in capsys.readouterr().out


def unwritable() -> ArchiveAway:
    error = ArchiveAway("can't write")
    error.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    return error


@pytest.mark.parametrize(
    "looks",
    [
        [KafkaUnavailable("no broker", KafkaError._TRANSPORT)],
        [ArchiveAway("can't list")],
        [3, KafkaUnavailable("no broker", KafkaError.TOPIC_AUTHORIZATION_FAILED)],
        [3, KafkaUnavailable("no broker", KafkaError._AUTHENTICATION)],
        [3, unwritable()],
    ],
)
def test_what_no_other_look_would_pass_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pauses: list[float], looks: Looks
) -> None:
    with pytest.raises(CommandError, match=f"^{looks[-1]}$"):
        follow(monkeypatch, tmp_path, looks)
    assert pauses == [5.0] * (len(looks) - 1)


def test_what_would_be_lost_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pauses: list[float]
) -> None:
    with pytest.raises(CommandError, match="a gap"):
        follow(monkeypatch, tmp_path, [3, ArchiveFailed("a gap."), 2])
