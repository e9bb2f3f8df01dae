"""Keep the code that jobs were submitted with, so that they run it until they are upgraded.

A version of a view that is kept beside a newer one must go on computing what it did, though the
cluster restarts after the code has changed. A copy is named after what is in it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

PACKAGES = ("schemas", "udfs", "jobs", "sinks", "deploy")
"""What a job imports, where it is submitted and where its Python functions run."""

_SUFFIXES = (".py", ".avsc")
# A copy that no job has yet may be that of a submission under way.
_SPARED_SECONDS = 3_600.0


def keep_code(home: Path, project: Path) -> str:
    """Keep a copy of the code in `project` below `home`, and return its name."""
    files = _files(project)
    name = _name(files)
    folder = code_folder(home, name)
    if folder.is_dir():
        os.utime(folder)
        return name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as temporary:
        copy = Path(temporary) / name
        for path, body in files.items():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(body)
        try:
            copy.rename(folder)
        except OSError:
            # Another process was faster with the same.
            if not folder.is_dir():
                raise
    return name


def code_name(project: Path) -> str:
    """Return what a copy of the code in `project` is called."""
    return _name(_files(project))


def code_folder(home: Path, name: str) -> Path:
    """Return where the copy called `name` is; it may be gone."""
    return home / "code" / name


def drop_code(home: Path, kept: Collection[str]) -> None:
    """Drop all copies but those called `kept` and the newest."""
    oldest = time.time() - _SPARED_SECONDS
    for folder in (home / "code").glob("*"):
        # What another submission is just writing may be gone by now.
        with suppress(FileNotFoundError):
            if folder.name not in kept and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def _files(project: Path) -> dict[str, bytes]:
    found = [path for package in PACKAGES for path in (project / package).rglob("*")]
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for path in sorted(found)
        if path.suffix in _SUFFIXES
    }


def _name(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, body in files.items():
        digest.update(f"{path} {len(body)}\n".encode() + body)
    return digest.hexdigest()[:16]
