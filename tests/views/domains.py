"""The domains whose views are tested, by name; `KAPPA_TEST_DOMAINS` (names, commas) picks some."""

from __future__ import annotations

import os
from types import ModuleType

from tests.views import (
    bidding,
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
VIEWS = [(name, view) for name, domain in DOMAINS.items() for view in domain.COLUMNS]
