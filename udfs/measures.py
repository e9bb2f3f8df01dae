"""What a windowed view can measure, and which partial aggregates each measure needs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.columns import ColumnType


class InvalidMeasure(ValueError):
    """A measure whose declaration makes no sense."""


_COMPARISONS = ("==", "!=", ">=", "<=", ">", "<")


@dataclass(frozen=True)
class Count:
    """Number of events; with a condition, of those where `field` compares true to `value`."""

    field: str | None = None
    comparison: str = ""
    value: float | str | None = None
    doc: str = ""

    type = ColumnType.LONG
    nullable = False

    def __post_init__(self) -> None:
        if self.field is not None and self.comparison not in _COMPARISONS:
            raise InvalidMeasure(
                f"{self.comparison!r} is no comparison; use one of {_COMPARISONS}."
            )


@dataclass(frozen=True)
class CountDistinct:
    """Exact number of distinct non-null values of `field`."""

    field: str
    doc: str = ""

    type = ColumnType.LONG
    nullable = False


@dataclass(frozen=True)
class CountDistinctApprox:
    """Number of distinct non-null values of `field`, with a standard error of 1.6%.

    Where more are estimated than there are events, it is the number of events.

    It keeps at most about 2 KB a row and pane, however many values there are: see `udfs.sketches`.
    """

    field: str
    doc: str = ""

    type = ColumnType.LONG
    nullable = False


@dataclass(frozen=True)
class Sum:
    """Sum of the non-null values of an integer `field`; null where there are none.

    A sum that leaves 64 bits starts again from the other end, and nothing tells: a `Range` of the
    stream keeps a field's values so small that none does.
    """

    field: str
    doc: str = ""

    type = ColumnType.LONG
    nullable = True


@dataclass(frozen=True)
class Mean:
    """Mean of the non-null values of an integer `field`; null where there are none.

    A sum that leaves 64 bits starts again from the other end, and nothing tells: a `Range` of the
    stream keeps a field's values so small that none does.
    """

    field: str
    doc: str = ""

    type = ColumnType.DOUBLE
    nullable = True


@dataclass(frozen=True)
class Min:
    """Least non-null value of an integer `field`; null where there are none."""

    field: str
    doc: str = ""

    type = ColumnType.LONG
    nullable = True


@dataclass(frozen=True)
class Max:
    """Greatest non-null value of an integer `field`; null where there are none."""

    field: str
    doc: str = ""

    type = ColumnType.LONG
    nullable = True


@dataclass(frozen=True)
class First:
    """Text of `field` in the first event, by time and then offset; of sessions only."""

    field: str
    doc: str = ""

    type = ColumnType.STRING
    nullable = False


@dataclass(frozen=True)
class Last:
    """Text of `field` in the last event, by time and then offset; of sessions only."""

    field: str
    doc: str = ""

    type = ColumnType.STRING
    nullable = False


@dataclass(frozen=True)
class Duration:
    """Milliseconds from the first event to the last; of sessions only."""

    doc: str = ""

    field = None
    type = ColumnType.LONG
    nullable = False


@dataclass(frozen=True)
class Single:
    """Whether there was only one event; of sessions only."""

    doc: str = ""

    field = None
    type = ColumnType.BOOLEAN
    nullable = False


@dataclass(frozen=True)
class Earliest:
    """Instant of the first event; of totals only."""

    doc: str = ""

    field = None
    type = ColumnType.TIMESTAMP
    nullable = False


@dataclass(frozen=True)
class Latest:
    """Instant of the last event; of totals only."""

    doc: str = ""

    field = None
    type = ColumnType.TIMESTAMP
    nullable = False


Measure = Count | CountDistinct | CountDistinctApprox | Sum | Mean | Min | Max
SessionMeasure = Count | Sum | Mean | Min | Max | First | Last | Duration | Single
TotalsMeasure = Count | CountDistinct | Sum | Mean | Min | Max | Earliest | Latest
