"""What every command prints: tables for people, JSON for programs, one sentence for an error."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

# A file or a pipe has no width of its own; 80 columns would fold timestamps.
_PIPE_COLUMNS = 140
# What a terminal would obey; lines and tabs are for the table.
_CODES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

OUT = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
ERR = Console(stderr=True)


class CommandError(Exception):
    """A failure the user can act on: one sentence that names the subject and the remedy."""


def fail(message: str) -> None:
    """Print `message` as the one line of an error; the caller exits non-zero."""
    ERR.print("[bold red]error:[/] ", end="")
    ERR.print(message, markup=False, highlight=False, soft_wrap=True)


def run_alone(main: Callable[..., None]) -> None:
    """Run `main` as a command of its own; a failure the user can act on ends as one sentence."""
    try:
        typer.run(main)
    except CommandError as error:
        fail(str(error))
        sys.exit(1)


def json_value(value: Any) -> Any:
    """Return `value` in a form JSON has; timestamps become ISO 8601 UTC with a Z."""
    if isinstance(value, datetime):
        utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        text = utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds")
        return text.replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_json(document: Any) -> None:
    """Print `document` as one JSON text on standard output."""
    sys.stdout.write(json.dumps(json_value(document), ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print `rows` as a table; numbers stand to the right, values are text and never markup."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    cells = [[_cell(value) for value in row] for row in rows]
    places = range(len(columns))
    numeric = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in places]
    for name, is_number in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    from rich.text import Text

    for row in cells:
        table.add_row(*(Text(_CODES.sub(_as_text, cell)) for cell in row))
    OUT.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        # Of so many digits before the point none may be lost, and of small figures not all.
        return f"{value:,.1f}" if 1e5 <= abs(value) < 1e15 else f"{value:,.6g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(json_value(value))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"–|nan|-?(inf|[,.]*\d[\d,.]*(e[+-]\d+)?)", cell) is not None


def _as_text(code: re.Match[str]) -> str:
    return f"\\x{ord(code[0]):02x}"


def progress_bar(*, unit: str = "") -> Progress:
    """Return a progress bar on standard error; it draws nothing where that is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=ERR,
        disable=not ERR.is_terminal,
    )
