"""How PostgreSQL is laid out, also where the stack is root's."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.parts import Folders
from deploy.postgres import _let_through, _prepare


@pytest.fixture
def place() -> Iterator[Folders]:
    """Folders of a home that the system user can reach, with PostgreSQL's own."""
    home = Path(tempfile.mkdtemp(prefix="kappa-test-"))
    (home / "data" / "postgres").mkdir(parents=True)
    yield Folders(home)
    shutil.rmtree(home)


def test_a_locale_that_is_not_there_keeps_nothing_from_being_laid_out(
    place: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.ISO-8859-1")
    _prepare(place)
    data = place.data("postgres")
    assert (data / "PG_VERSION").read_text() == "18\n"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert os.listdir(place.home / "data") == ["postgres"]


def test_what_was_laid_out_half_way_is_laid_out_anew(
    place: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def killed(command: list[str], **_: Any) -> None:
        (Path(command[-1]) / "PG_VERSION").write_text("18\n")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        _prepare(place)
    monkeypatch.setattr(subprocess, "run", run)
    _prepare(place)
    assert (place.data("postgres") / "postgresql.conf").exists()


def test_folders_that_are_opened_are_named_and_others_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    modes = {"closed": 0o700, "listed": 0o750, "open": 0o755, "passed": 0o711}
    for name, mode in modes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)

    for _ in range(2):
        _let_through({tmp_path / name for name in modes})

    found = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in modes}
    assert found == {"closed": 0o701, "listed": 0o751, "open": 0o755, "passed": 0o711}
    (said,) = caplog.messages
    assert said.startswith(f"opened {tmp_path / 'closed'}, {tmp_path / 'listed'} for any user")
