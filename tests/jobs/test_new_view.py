"""`kappa new-view`: what it writes works, and passes the project's own checks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.settings import PROJECT_ROOT
from jobs.catalogue import JOBS
from jobs.new_view import CannotWrite, new_view

NAME = "page_views_per_country"


@pytest.fixture
def project(tmp_path: Path, processes: None) -> Path:
    """A copy of the project's code, to write into."""
    for folder in ("deploy", "jobs", "replay", "schemas", "serving", "sinks", "udfs"):
        kept = shutil.ignore_patterns("__pycache__", "static")
        shutil.copytree(PROJECT_ROOT / folder, tmp_path / folder, ignore=kept)
    (tmp_path / "tests" / "jobs").mkdir(parents=True)
    for place in ("tests", "tests/jobs"):
        (tmp_path / place / "__init__.py").touch()
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_view_and_its_test_work(project: Path) -> None:
    done = run(project, "deploy.cli", "new-view", NAME, "--by", "country")
    assert done.returncode == 0, done.stderr
    listed = run(project, "deploy.cli", "views", NAME)
    assert "How many events each country has in 60 seconds." in listed.stdout, listed.stderr
    tested = run(project, "pytest", "-q", "-p", "no:cacheprovider", f"tests/jobs/test_{NAME}.py")
    assert "1 passed" in tested.stdout, tested.stdout + tested.stderr
    written = ["jobs/page_views.py", f"tests/jobs/test_{NAME}.py"]
    for check in (("check",), ("format", "--check")):
        linted = run(project, "ruff", *check, *written)
        assert linted.returncode == 0, linted.stdout
    again = run(project, "deploy.cli", "new-view", NAME)
    assert again.returncode == 1
    assert "there is a view page_views_per_country already" in again.stderr


def test_what_a_module_lacks_is_imported() -> None:
    text = (
        "from __future__ import annotations\n\nfrom jobs.views import Job\n"
        "from schemas.streams import PAGE_VIEWS\n\nJOB = Job(\n"
        '    "page_views",\n    (PAGE_VIEWS,),\n    (),\n)\n'
    )
    made = new_view(NAME, "page_views", "", text).module_text
    assert "from datetime import timedelta\n" in made
    assert "from jobs.views import Job, Tumbling, WindowView\n" in made
    assert "from udfs.measures import Count\n" in made
    compile(made, "page_views.py", "exec")


@pytest.mark.parametrize(
    ("name", "by", "said"),
    [
        ("Per-Page", "", "is no name of a view"),
        ("late_events", "", "late_events is a table of the project's own"),
        ("orders_accounting", "", "orders_accounting is a table of the project's own"),
        ("page_views_v1", "", 'tables end in "_v1"'),
        ("page_views_per_minute", "", "there is a view"),
        ("mine", "status", "status is no text field of stream page_views; there are event_id"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_reason(name: str, by: str, said: str) -> None:
    with pytest.raises(CannotWrite, match=said):
        new_view(name, "page_views", by, "")


@pytest.mark.parametrize("job", JOBS)
def test_every_job_takes_another_view(job: str) -> None:
    text = (PROJECT_ROOT / "jobs" / f"{job}.py").read_text()
    compile(new_view("one_more", job, "", text).module_text, f"{job}.py", "exec")


def test_what_a_module_calls_something_is_no_name_of_a_view() -> None:
    text = (PROJECT_ROOT / "jobs" / "page_views.py").read_text()
    with pytest.raises(CannotWrite, match="has something called PAGE_VIEWS already"):
        new_view("page_views", "page_views", "", text)
    with pytest.raises(CannotWrite, match="has something called JOB already"):
        new_view("job", "page_views", "", text)


def test_a_test_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "tests" / "jobs").mkdir(parents=True)
    (tmp_path / "jobs").mkdir()
    text = (PROJECT_ROOT / "jobs" / "page_views.py").read_text()
    made = new_view(NAME, "page_views", "", text)
    (tmp_path / made.test).write_text("own")
    with pytest.raises(CannotWrite, match="is there already"):
        made.write(tmp_path)
    assert (tmp_path / made.test).read_text() == "own"
    assert not (tmp_path / made.module).exists()
