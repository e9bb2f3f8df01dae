"""Put names and values into ClickHouse SQL, quoted. No I/O."""

from __future__ import annotations


def identifier(name: str) -> str:
    """Return `name` as ClickHouse reads the name of a database, table or column."""
    return f"`{_escaped(name).replace('`', chr(92) + '`')}`"


def literal(text: str) -> str:
    """Return `text` as a ClickHouse string literal."""
    return "'" + _escaped(text).replace("'", r"\'") + "'"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")
