"""Views in Flink SQL. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Self

from jobs.views.base import InvalidView, View
from schemas.columns import Column
from schemas.streams import Stream


@dataclass(frozen=True, kw_only=True)
class QueryView(View):
    """A view in Flink SQL, over one stream or several.

    In `sql` each stream is a table of its name, with its fields as columns, `event_time` as the
    event-time attribute (TIMESTAMP_LTZ(3)), and `event_ms` (epoch milliseconds),
    `source_partition` and `source_offset` beside them. It holds good events that came in time
    only; none of them is late for any operator, because the watermark it sees trails the stream's
    by the allowed lateness. The query's columns must be `query_columns`, by position; a later view
    of the job may read them by the view's name. It may replace a row by a newer one of the same
    `key`, and never delete one.

    `state_retention` is how long Flink keeps the state of a key that nothing changes; None where
    windows or intervals end state by themselves. With several such views the job keeps the longest.
    The newest version of each key that a query joins is kept as long, and for good where no view of
    the job has one; what MATCH_RECOGNIZE knows of a key, some bytes, is always kept for good.

    `time_columns` hold the first and last instant of a row, and nothing changes it once events are
    `settled_after` past the last; without them a replay compares rows whose events may not all have
    come in both versions. Rows that go on being written are then held by the columns which no event
    more can lessen (`grows`: counts, sums of what is never negative, maxima) or raise (`falls`:
    minima); not by a sum that a refund takes from.
    """

    sources: tuple[Stream, ...]
    key_columns: tuple[str, ...]
    query_columns: tuple[Column, ...]
    sql: str
    state_retention: timedelta | None = None
    time_columns: tuple[str, str] | None = None
    settled_after: timedelta = timedelta(0)
    grows: tuple[str, ...] = ()
    falls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = {column.name for column in self.query_columns}
        if missing := sorted(set(self.key_columns) - names):
            raise InvalidView(f"{self.name}: key column {missing} is none of its columns.")
        if not self.key_columns:
            raise InvalidView(f"{self.name}: a view needs a key.")
        nullable = [c.name for c in self.query_columns if c.nullable and c.name in self.key_columns]
        if nullable:
            raise InvalidView(f"{self.name}: key column {nullable} must never be null.")
        self._check_courses(names - set(self.key_columns))

    def _check_courses(self, names: set[str]) -> None:
        for option, chosen in (("grows", self.grows), ("falls", self.falls)):
            if unknown := [name for name in chosen if name not in names]:
                raise InvalidView(
                    f"{self.name}: {option} names {unknown}, which is none of its columns beside "
                    f"the key; there are: {', '.join(sorted(names))}."
                )
        if both := sorted(set(self.grows) & set(self.falls)):
            raise InvalidView(f"{self.name}: {both} can't both grow and fall; name it once.")

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that the query reads."""
        return self.sources

    @property
    def columns(self) -> tuple[Column, ...]:
        """The query's columns."""
        return self.query_columns

    @property
    def key(self) -> tuple[str, ...]:
        """The declared key."""
        return self.key_columns

    @property
    def layout(self) -> str:
        """The query, as text without its line breaks."""
        return " ".join(self.sql.split())

    @property
    def sink(self) -> str:
        """What Flink calls the table that the rows go to, and the operators that write it."""
        return f"{self.name}_topic"

    def over(self, streams: Mapping[str, Stream]) -> Self:
        """Return the same view over other streams of the same names."""
        return replace(self, sources=tuple(streams[stream.name] for stream in self.sources))

    def names(self, table: Stream | View) -> bool:
        """Return whether the query names the table of `table`, or its versions."""
        return bool(re.search(rf"\b{table.name}\b", self.sql)) or self.joins(table)

    def joins(self, table: Stream | View) -> bool:
        """Return whether the query names the versions of `table`."""
        return bool(re.search(rf"\b{versions_table(table)}\b", self.sql))

    def fields_of(self, stream: Stream) -> tuple[str, ...]:
        """Return the fields of `stream` that the query names, in the stream's order."""
        names = (f["name"] for f in stream.schema["fields"] if f["name"] != stream.event_time_field)
        return tuple(name for name in names if re.search(rf"\b{name}\b", self.sql))


def versions_table(table: Stream | View) -> str:
    """Return what the versions of `table` are called in SQL."""
    return f"{table.name}_versions"


@dataclass(frozen=True, kw_only=True)
class ArrivalView(QueryView):
    """A view in Flink SQL that answers each event as it arrives, within milliseconds.

    In `sql` each stream is the table `<stream>_arrivals`: the columns of a `QueryView`'s, but
    numbers are BIGINT or DOUBLE, `event_time` is a plain time, and `arrived` the processing-time
    attribute to order by. It holds all good events, late ones too. Those of a partition come in the
    order of their offsets and those of a key lie in one partition, so what a query finds per key in
    that order follows from the topic alone, as long as no partition is added; it must not look at
    the clock. With a `state_retention` the query itself must leave out what ended state would no
    longer tell: the clock ends it. After a failure a row may be written again, the same under the
    same key: that is why readers needn't wait for a transaction.
    """

    def names(self, table: Stream | View) -> bool:
        """Return whether the query names the arrivals of a stream, or a view."""
        name = f"{table.name}_arrivals" if isinstance(table, Stream) else table.name
        return bool(re.search(rf"\b{name}\b", self.sql))
