"""How PostgreSQL is laid out where the stack is root's."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.postgres import _let_through


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
