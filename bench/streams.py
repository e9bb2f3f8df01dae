"""Streams that only benchmarks read, whose schemas are kept with them in `bench/schemas`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from schemas.streams import Stream

SCHEMAS = Path(__file__).parent / "schemas"


@dataclass(frozen=True)
class BenchStream(Stream):
    """A stream with the schema of `schema_file`, a file of `bench/schemas`."""

    schema_file: str = ""

    @property
    def schema_path(self) -> str:
        """File of the current Avro schema, with its whole path."""
        return str(SCHEMAS / self.schema_file)


def with_schema(stream: Stream, schema_file: str, **changes: Any) -> BenchStream:
    """Return `stream` with another schema and some other `changes`."""
    same = {field.name: getattr(stream, field.name) for field in fields(Stream)}
    return BenchStream(**{**same, **changes}, schema_file=schema_file)
