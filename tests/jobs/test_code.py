"""The code of a job is kept once for each state of the project, as long as a job runs it."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.code import code_folder, drop_code, keep_code

_YEARS_AGO = 1_000_000_000.0


def project(tmp_path: Path, **modules: str) -> Path:
    """Return a project whose `jobs` has these modules."""
    folder = tmp_path / "project"
    (folder / "jobs" / "__pycache__").mkdir(parents=True, exist_ok=True)
    (folder / "jobs" / "__pycache__" / "old.pyc").write_bytes(os.urandom(8))
    for name, text in modules.items():
        (folder / "jobs" / f"{name}.py").write_text(text)
    return folder


def test_the_same_code_is_kept_once_and_other_code_beside_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = keep_code(home, project(tmp_path, words="A = 1\n"))
    assert keep_code(home, project(tmp_path)) == first
    second = keep_code(home, project(tmp_path, words="A = 2\n"))
    third = keep_code(home, project(tmp_path, more=""))
    assert len({first, second, third}) == 3
    kept = {
        name: sorted(p.name for p in code_folder(home, name).rglob("*") if p.is_file())
        for name in (first, second, third)
    }
    assert kept == {first: ["words.py"], second: ["words.py"], third: ["more.py", "words.py"]}
    assert (code_folder(home, first) / "jobs/words.py").read_text() == "A = 1\n"
    assert sorted(os.listdir(home / "code")) == sorted(kept)


def test_code_that_no_job_runs_is_dropped_unless_it_is_new(tmp_path: Path) -> None:
    home = tmp_path / "home"
    names = [keep_code(home, project(tmp_path, words=f"A = {n}\n")) for n in range(3)]
    for name in names[:2]:
        os.utime(code_folder(home, name), (_YEARS_AGO, _YEARS_AGO))
    drop_code(home, {names[0]})
    assert sorted(os.listdir(home / "code")) == sorted([names[0], names[2]])
    os.utime(code_folder(home, names[2]), (_YEARS_AGO, _YEARS_AGO))
    assert keep_code(home, project(tmp_path)) == names[2]
    drop_code(home, set())
    assert os.listdir(home / "code") == [names[2]]


def test_what_is_gone_when_copies_are_looked_at_is_passed_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    name = keep_code(home, project(tmp_path, words="A = 1\n"))
    os.utime(code_folder(home, name), (_YEARS_AGO, _YEARS_AGO))
    (home / "code" / "a").symlink_to(home / "nowhere")
    drop_code(home, set())
    assert os.listdir(home / "code") == ["a"]
