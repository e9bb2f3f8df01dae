"""What `make` would do."""

from __future__ import annotations

import subprocess

import pytest

from deploy.settings import PROJECT_ROOT


@pytest.mark.parametrize(
    ("target", "replaces"), [("install", "--require-hashes"), ("jars", "rm -rf .jars")]
)
def test_the_stack_is_stopped_before_what_it_runs_on_is_replaced(
    target: str, replaces: str
) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    replacing = next(number for number, line in enumerate(lines) if replaces in line)
    assert "kappa down" in lines[replacing - 1]
