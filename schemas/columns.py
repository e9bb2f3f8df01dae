"""Columns and their types, before any backend maps them. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ColumnType(Enum):
    """Types a view's column can have; each backend maps them in its own room."""

    STRING = "string"
    LONG = "long"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"


@dataclass(frozen=True)
class Column:
    """One column of a view; timestamps are UTC with millisecond precision."""

    name: str
    type: ColumnType
    nullable: bool = False
    doc: str = ""
