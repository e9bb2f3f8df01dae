"""The catalogue page in docs/ is the one that the declarations give."""

from __future__ import annotations

from deploy.settings import PROJECT_ROOT
from jobs.catalogue import JOBS, VIEWS
from jobs.catalogue_page import page


def test_the_page_is_of_now() -> None:
    written = (PROJECT_ROOT / "docs" / "VIEWS.md").read_text()
    assert written == page(JOBS.values()), "run: kappa views --markdown > docs/VIEWS.md"


def test_every_view_and_every_column_says_what_it_is() -> None:
    for view in VIEWS.values():
        assert view.description.endswith(".")
        for column in view.columns:
            if column.name not in ("window_start", "window_end") and column.name not in view.key:
                assert column.doc, f"{view.name}.{column.name}"
