"""A build is named after the files that make it."""

from __future__ import annotations

from pathlib import Path

from serving.build import build_id


def files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / "static" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_equal_files_are_one_build_and_any_change_is_another(tmp_path: Path) -> None:
    first = build_id(files(tmp_path / "one", page="a", script="bc"))
    compiled = files(tmp_path / "two", page="a", script="bc") / "__pycache__"
    compiled.mkdir()
    (compiled / "x.pyc").write_bytes(b"later")
    assert build_id(tmp_path / "two") == first
    others = [
        build_id(files(tmp_path / "three", page="ab", script="c")),
        build_id(files(tmp_path / "four", page="a", script="bd")),
        build_id(files(tmp_path / "five", page="a", program="bc")),
    ]
    assert len({first, *others}) == 4
