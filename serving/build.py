"""Which build of the server and its page runs: an open page of another one loads itself anew."""

from __future__ import annotations

import hashlib
from pathlib import Path


def build_id(folder: Path) -> str:
    """Return a name for what the files of `folder` are; equal files have equal names anywhere."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
