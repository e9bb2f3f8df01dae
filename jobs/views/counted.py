"""Views that judge numbers of events: the most of a window, or more than usual. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from jobs.views.base import InvalidView
from jobs.views.folded import WINDOW_END, WINDOW_START, FoldedView, Tumbling
from schemas.columns import Column


@dataclass(frozen=True, kw_only=True)
class CountedView(FoldedView):
    """A view that judges the number of events of each window and its dimensions.

    A row comes once no event in time can be in its window any more, and stays as it is. `counted`
    is its column with the number. `docs` say what dimensions are, where not what their fields are.
    """

    window: Tumbling
    counted: Column
    docs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._refuse_unknown_fields()
        self._refuse_split_panes(self.window)
        if not self.dimensions:
            raise InvalidView(f"{self.name}: name dimensions; they are what is counted by.")

    @property
    def dimension_columns(self) -> tuple[Column, ...]:
        """A column of text for each dimension."""
        columns = super().dimension_columns
        return tuple(replace(one, doc=self.docs.get(one.name, one.doc)) for one in columns)

    @property
    def instants(self) -> tuple[Column, Column]:
        """Start and end of the window."""
        return WINDOW_START, WINDOW_END


@dataclass(frozen=True, kw_only=True)
class RankedView(CountedView):
    """The `top` dimensions with the most events of each window; of equals the lesser first.

    `rank` is the column with the place, from 1.
    """

    top: int
    rank: Column

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top < 1:
            raise InvalidView(f"{self.name}: the top {self.top} are none.")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The window, the rank, the dimensions and the number."""
        return (*self.instants, self.rank, *self.dimension_columns, self.counted)

    @property
    def key(self) -> tuple[str, ...]:
        """The window and the rank."""
        return (WINDOW_START.name, self.rank.name)

    @property
    def layout(self) -> str:
        """Dimensions, window and how many of it, as text."""
        return f"{self.dimensions} {self.window} {self.top}"


@dataclass(frozen=True, kw_only=True)
class AnomalyView(CountedView):
    """Windows in which the same dimensions had far more events than usual.

    What is usual is the baseline (`udfs.ewma`) of those with events that begin at most `lookback`
    before. A window is a spike from `spike` times that, and critical above `critical` times, as the
    column `severity` says.
    """

    lookback: timedelta
    spike: float
    critical: float
    baseline: Column
    severity: Column

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lookback < self.window.size:
            raise InvalidView(f"{self.name}: no window begins within {self.lookback} before one.")
        if not 0 < self.spike <= self.critical:
            raise InvalidView(
                f"{self.name}: spike {self.spike} must be more than zero, and critical "
                f"{self.critical} no less."
            )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Dimensions, the window, the number, its baseline and the severity."""
        judged = (self.counted, self.baseline, self.severity)
        return (*self.dimension_columns, *self.instants, *judged)

    @property
    def key(self) -> tuple[str, ...]:
        """The window and the dimensions."""
        return (WINDOW_START.name, *self.dimensions)

    @property
    def layout(self) -> str:
        """Dimensions, window, what it is held against and how, as text."""
        return f"{self.dimensions} {self.window} {self.lookback} {self.spike} {self.critical}"

    @property
    def looks_back(self) -> timedelta:
        """What a window is held against."""
        return self.lookback
