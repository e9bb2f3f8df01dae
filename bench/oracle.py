"""The rows that a windowed view must have, by a group-by in pandas. No I/O."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs.plan import used_fields
from jobs.views import WINDOW_START, WindowView
from udfs.measures import Count, CountDistinct, Max, Mean, Measure, Min, Sum

_MILLISECOND = timedelta(milliseconds=1)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def window_rows(view: WindowView, batches: Iterable[pa.RecordBatch]) -> pd.DataFrame:
    """Return the window's start, the dimensions and the measures of `view` over all events."""
    time = view.stream.event_time_field
    fields = sorted(used_fields((view,)))
    table = pa.Table.from_batches([batch.select([time, *fields]) for batch in batches])
    for name in view.dimensions:
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].fill_null(""))
    # As categories texts cost a number an event.
    texts = [n for n in fields if pa.types.is_string(table.schema.field(n).type)]
    events = table.to_pandas(categories=texts)
    events[time] = table[time].cast(pa.int64()).to_numpy()
    return _grouped(view, pd.concat(_windows(view, events, time), ignore_index=True))


def _windows(view: WindowView, events: pd.DataFrame, time: str) -> Iterable[pd.DataFrame]:
    """Yield the events once for each window that they are in."""
    slide = view.window.slide // _MILLISECOND
    last = events[time] - events[time] % slide
    for back in range(view.window.size // view.window.slide):
        yield events.assign(**{WINDOW_START.name: last - back * slide})


def _grouped(view: WindowView, events: pd.DataFrame) -> pd.DataFrame:
    keys = [WINDOW_START.name, *view.dimensions]
    columns = {name: _column(measure, events, keys) for name, measure in view.measures.items()}
    found = pd.DataFrame(columns).reset_index()
    for name in view.dimensions:
        found[name] = found[name].astype(str)
    return found


def _column(measure: Measure, events: pd.DataFrame, keys: list[str]) -> Any:
    if isinstance(measure, Count) and measure.field:
        met = _COMPARE[measure.comparison](events[measure.field], measure.value)
        return met.groupby([events[key] for key in keys], observed=True).sum().astype(np.int64)
    groups = events.groupby(keys, observed=True, sort=False)
    match measure:
        case Count():
            return groups.size()
        case CountDistinct(field=name):
            return groups[name].nunique()
        case Sum(field=name):
            return groups[name].sum(min_count=1)
        case Mean(field=name):
            return groups[name].mean()
        case Min(field=name):
            return groups[name].min()
        case Max(field=name):
            return groups[name].max()
    raise NotImplementedError(f"{measure} is not checked.")
