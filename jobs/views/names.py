"""Which names views may have. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from jobs.views.base import InvalidView

_MOST_LETTERS = 150
"""ClickHouse keeps a dropped table as a file called after its database, itself and an id."""
_TAKEN = frozenset({"dead_letters", "late_events", "repaired_events", "view_pointers"})
# What tables are called that hold what a name shows, on one server or on a cluster.
_ENDS_OF_TABLES = re.compile(r"(_v[0-9]+|_loaded|_local)$")


def accounting_name(stream: str) -> str:
    """Return the name of the view that accounts for the events of `stream`."""
    return f"{stream}_accounting"


def check_name(name: str, streams: Iterable[str]) -> None:
    """Raise `InvalidView` where a view over `streams` can't be called `name`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InvalidView(
            f'"{name}" is no name of a view: use small letters, digits and "_", a letter first.'
        )
    if len(name) > _MOST_LETTERS:
        raise InvalidView(
            f'"{name}" is too long for the name of a view; {_MOST_LETTERS} letters are the most.'
        )
    if name in _TAKEN or name in map(accounting_name, streams):
        raise InvalidView(f"{name} is a table of the project's own; choose another name.")
    if found := _ENDS_OF_TABLES.search(name):
        raise InvalidView(
            f'{name} is no name of a view: tables end in "{found[0]}"; choose another name.'
        )


def check_once(names: Iterable[str], where: str) -> None:
    """Raise `InvalidView` where a name comes twice among `names`, which stand in `where`."""
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise InvalidView(f"{where} more than one view {twice[0]}; choose another name.")
