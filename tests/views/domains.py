"""The domains whose views are tested, by name; `KAPPA_TEST_DOMAINS` (names, commas) picks some."""

from __future__ import annotations

import os
from types import ModuleType

import pytest

from tests.views import (
    bidding,
    categories,
    devices,
    experiments,
    orders,
    page_views,
    playbacks,
    posts,
    recommendations,
    transactions,
    words,
)

_ALL: dict[str, ModuleType] = {
    "page_views": page_views,
    "categories": categories,
    "transactions": transactions,
    "devices": devices,
    "orders": orders,
    "playbacks": playbacks,
    "bidding": bidding,
    "experiments": experiments,
    "recommendations": recommendations,
    "posts": posts,
    "words": words,
}
_CHOSEN = os.environ.get("KAPPA_TEST_DOMAINS", "")
DOMAINS = {name: m for name, m in _ALL.items() if not _CHOSEN or name in _CHOSEN.split(",")}
# The others run with `make test-long`: so many jobs at once take their time on two cores.
_QUICK = ("page_views", "orders", "words")


def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """Return the marks of a test that needs the domain's job."""
    return () if name in _QUICK else (pytest.mark.long,)


NAMES = [pytest.param(name, marks=marks(name)) for name in DOMAINS]
VIEWS = [
    pytest.param(name, view, marks=marks(name))
    for name, domain in DOMAINS.items()
    for view in domain.COLUMNS
]
