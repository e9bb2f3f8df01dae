"""Fixtures for all tests: one embedded stack a session, with its logs shown when a test fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from deploy.settings import PROJECT_ROOT, Settings
from deploy.stack import Stack
from tests.own_stack import own_stack, shown, shown_stack

_LOG_LINES, _LINE_LENGTH = 20, 240
_FAULTS = Path(__file__).with_name("faults")


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Return a running stack of this session's own.

    With `KAPPA_TEST_STACK=<home>:<port_base>` it is one that stays up after the tests.
    """
    if given := os.environ.get("KAPPA_TEST_STACK"):
        home, _, port_base = given.rpartition(":")
        found = Stack(Settings(home=Path(home), port_base=int(port_base)))
        with shown(request.config, found):
            found.up()
            yield found
        return
    with own_stack() as own, shown(request.config, own):
        own.up()
        yield own


@pytest.fixture(scope="session")
def processes() -> None:
    """Ask for it where a fixture starts a process: it tells which tests are no unit tests."""


@pytest.fixture(scope="session")
def browser(processes: None) -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.fail("These tests need Chromium: apt-get install chromium, or put it on the PATH.")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return where pictures go: the folder that KAPPA_SCREENSHOTS names, or one of the test's."""
    return PROJECT_ROOT / os.environ.get("KAPPA_SCREENSHOTS", str(tmp_path))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the tails of the stack's logs to the report of a failed test."""
    report = yield
    running = shown_stack(item.config)
    if report.failed and running is not None and "stack" in getattr(item, "fixturenames", ()):
        report.sections.extend(_log_tails(running))
    return report


def _log_tails(running: Stack) -> list[tuple[str, str]]:
    states = "\n".join(f"{one.name}: {one.state} {one.detail}" for one in running.status())
    tails = [("parts of the stack", states)]
    for path in sorted(running.place.logs.glob("*.log")):
        lines = [line[:_LINE_LENGTH] for line in _telling_lines(path)]
        if lines:
            tails.append((f"end of {path.name}", "\n".join(lines[-_LOG_LINES:])))
    return tails


def _telling_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(errors="replace").splitlines() if " INFO " not in line]


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Mark what uses the stack or other processes, and run the quick tests first.

    Then come the faults, whose stack is down again before the one of all others comes up.
    """
    for item in items:
        for marker, fixture in ((pytest.mark.stack, "stack"), (pytest.mark.process, "processes")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    items.sort(key=_turn)


def _turn(item: Any) -> int:
    if "stack" not in getattr(item, "fixturenames", ()):
        return 0
    return 1 if item.path.is_relative_to(_FAULTS) else 2
