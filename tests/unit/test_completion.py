"""What the shell offers while a command is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.catalogue import JOBS


def offered(*words: str) -> list[str]:
    """Return what bash offers for the last of `words`."""
    asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [Path(sys.executable).with_name("kappa")],
        env=os.environ | asked | {"_KAPPA_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("kappa", "rep"), ["replay"]),
        (("kappa", "replay", "ro"), ["rollback"]),
        (("kappa", "submit", ""), sorted(JOBS)),
        (("kappa", "replay", "run", "page_views_per_m"), ["page_views_per_minute"]),
        (("kappa", "produce", "--stream", "transa"), ["transactions"]),
    ],
)
def test_commands_and_names_are_completed(words: tuple[str, ...], names: list[str]) -> None:
    assert offered(*words) == names
