"""What the rows of a question must be: group-bys in pandas and a loop, with no code of a view's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from bench.peers.protocol import Cell, Rows, Table, text
from bench.worlds import HOUR, MINUTE, Array, World

Frames = dict[str, pd.DataFrame]
"""By view: a column for each column asked for."""
_PAUSE = 30 * MINUTE
_MILESTONE, _TOP = 1_000, 10
_REMEMBERED, _OFTEN = 20, 5
_EARTH_KM = 6_371.0
_VIEW_FIELDS = ("event_time", "user_id", "page_id", "duration_ms", "status", "event_id")


def expected_rows(answer: Callable[[World], Frames], world: World, tables: Sequence[Table]) -> Rows:
    """Return the rows that `answer` gives over `world`, as text."""
    frames = answer(world)
    return {table.view: _texts(frames[table.view], table) for table in tables}


def _texts(frame: pd.DataFrame, table: Table) -> dict[tuple[str, ...], tuple[str, ...]]:
    def listed(names: Iterable[str]) -> Iterable[tuple[str, ...]]:
        return zip(*([text(cell) for cell in _cells(frame[name])] for name in names), strict=True)

    return dict(zip(listed(table.keys), listed(table.cells), strict=True))


def _cells(column: pd.Series[Any]) -> list[Cell]:
    if column.dtype != np.float64 or str(column.name).startswith("avg"):
        return [None if cell != cell else cell for cell in column.tolist()]
    # Whole numbers, some of them missing.
    return [None if math.isnan(cell) else int(cell) for cell in column.tolist()]


def frame(batches: Iterable[pa.RecordBatch], fields: Sequence[str]) -> pd.DataFrame:
    """Return some fields of all events; times as epoch milliseconds."""
    table = pa.Table.from_batches([batch.select(fields) for batch in batches])
    found: pd.DataFrame = table.to_pandas()
    return found


def windows(
    events: pd.DataFrame, size: int, slide: int, by: Sequence[str], measures: Sequence[str]
) -> pd.DataFrame:
    """Return measures of page views by `by` and window; sizes in milliseconds."""
    first = events["event_time"] - events["event_time"] % slide
    # An event is in as many windows as start between it and a window's size before it.
    starts = range(size // slide)
    events = pd.concat(events.assign(window_start=first - n * slide) for n in starts)
    events["error"] = events["status"] >= 500
    keys = ["window_start", *by]
    grouped = events.groupby(keys, sort=False)
    ways: Mapping[str, Callable[[], Any]] = {
        "views": grouped.size,
        "errors": grouped["error"].sum,
        "unique_users": lambda: _uniques(events, keys),
        "duration_ms": lambda: grouped["duration_ms"].sum(min_count=1),
        "avg_duration_ms": grouped["duration_ms"].mean,
    }
    return pd.DataFrame({name: ways[name]() for name in measures}).reset_index()


def _uniques(events: pd.DataFrame, keys: list[str]) -> pd.Series[int]:
    """Return the visitors of each group; many times faster than `nunique` is."""
    return events[[*keys, "user_id"]].drop_duplicates().groupby(keys, sort=False).size()


def page_windows(view: str, size: int, slide: int, *measures: str) -> Callable[[World], Frames]:
    """Return what answers a question about windows of pages."""

    def answer(world: World) -> Frames:
        events = frame(world.batches("page_views"), _VIEW_FIELDS)
        return {view: windows(events, size, slide, ["page_id"], measures)}

    return answer


def visits(world: World) -> Frames:
    """Return the sessions."""
    return {"page_view_sessions": sessions(_past_views(world))}


def sessions(events: pd.DataFrame) -> pd.DataFrame:
    """Return each visitor's runs of page views without a pause."""
    events = events[["user_id", "event_time"]].sort_values(["user_id", "event_time"])
    times, users = events["event_time"].to_numpy(), events["user_id"].to_numpy()
    begins = np.ones(len(events), dtype=bool)
    begins[1:] = (users[1:] != users[:-1]) | (np.diff(times) > _PAUSE)
    found = events.groupby(np.cumsum(begins), sort=False)
    first, last = found["event_time"].first(), found["event_time"].last()
    columns = {"user_id": found["user_id"].first(), "session_start": first}
    return pd.DataFrame({**columns, "pages": found.size(), "duration_ms": last - first})


def page_views(world: World) -> Frames:
    """Return the rows of all page-view views that are compared."""
    events = _past_views(world)
    measures = ("views", "unique_users", "avg_duration_ms", "errors")
    pages = events.groupby("page_id", sort=False)
    stats = {
        "views": pages.size(),
        "unique_users": _uniques(events, ["page_id"]),
        "errors": (events["status"] >= 500).groupby(events["page_id"]).sum(),
        "first_seen": pages["event_time"].min(),
        "last_seen": pages["event_time"].max(),
    }
    return {
        "page_views_per_minute": windows(events, MINUTE, MINUTE, ["page_id"], measures),
        "page_views_sliding": windows(events, 5 * MINUTE, MINUTE, ["page_id"], measures),
        "site_traffic_per_minute": windows(events, MINUTE, MINUTE, [], measures),
        "unique_users_per_hour": windows(events, HOUR, HOUR, [], measures[:2]),
        "page_view_sessions": sessions(events),
        "page_stats": pd.DataFrame(stats).reset_index(),
        "page_milestones": _milestones(events),
        "top_pages": _top_pages(events),
    }


def _past_views(world: World) -> pd.DataFrame:
    events = frame(world.batches("page_views"), _VIEW_FIELDS)
    return events[events["event_time"] < world.end_ms] if world.end_ms else events


def _milestones(events: pd.DataFrame) -> pd.DataFrame:
    ordered = events[["page_id", "event_time", "event_id"]].sort_values(["event_time", "event_id"])
    ordered["views"] = ordered.groupby("page_id").cumcount() + 1
    reached = ordered[ordered["views"] % _MILESTONE == 0]
    return reached.rename(columns={"event_time": "reached_at"})


def _top_pages(events: pd.DataFrame) -> pd.DataFrame:
    hours = windows(events, HOUR, HOUR, ["page_id"], ["views"])
    hours = hours.sort_values(["window_start", "views", "page_id"], ascending=[True, False, True])
    hours["rank"] = hours.groupby("window_start").cumcount() + 1
    return hours[hours["rank"] <= _TOP]


def payments(world: World) -> Frames:
    """Return each payment with its order, where they are at most a minute apart."""
    orders = frame(world.batches("orders"), ["order_id", "event_time", "status"])
    paid = frame(world.batches("payments"), ["payment_id", "order_id", "event_time", "paid_cents"])
    orders = orders[orders["status"] == "placed"].rename(columns={"event_time": "ordered_at"})
    both = paid.rename(columns={"event_time": "paid_at"}).merge(orders, on="order_id")
    return {"order_payments": both[(both["paid_at"] - both["ordered_at"]).abs() <= MINUTE]}


def thefts(world: World) -> Frames:
    """Return the payments by card that are much more than usual, and far from the last.

    0.4 for much, 0.5 for far and 0.3 for often make more than 0.8 only with the first two.
    """
    fields = ["event_id", "event_time", "user_id", "amount_cents", "latitude", "longitude"]
    # Stable: a user's payments stay in the order of their arrival.
    cards = frame(world.batches("transactions"), fields).sort_values("user_id", kind="stable")
    place = cards.groupby("user_id", sort=False).cumcount().to_numpy()
    times, amounts = cards["event_time"].to_numpy(), cards["amount_cents"].to_numpy()
    is_alert = _is_much(amounts, place) & _is_far(cards, times, place)
    is_often = (place >= _OFTEN - 1) & (_since(times, _OFTEN - 1) <= 5 * MINUTE)
    reasons = np.where(is_often, "amount, distance, frequency", "amount, distance")
    named = cards.rename(columns={"event_id": "transaction_id"}).assign(reasons=reasons)
    return {"fraud_alerts": named[is_alert]}


def _is_much(amounts: Array, place: Array) -> Array:
    """Return which amounts are over five times the mean of the user's last twenty."""
    before = np.concatenate([[0], np.cumsum(amounts)[:-1]])
    known = np.minimum(place, _REMEMBERED)
    spent = before - before[np.arange(len(amounts)) - known]
    much: Array = (known > 0) & (amounts * known > 5 * spent)
    return much


def _is_far(cards: pd.DataFrame, times: Array, place: Array) -> Array:
    """Return which payments are over 1,000 km from the user's last, within an hour."""
    north, east = (np.radians(cards[name].to_numpy()) for name in ("latitude", "longitude"))
    half = np.sin(_since(north, 1) / 2) ** 2
    half += np.cos(north) * np.cos(np.roll(north, 1)) * np.sin(_since(east, 1) / 2) ** 2
    kilometres = 2 * _EARTH_KM * np.arcsin(np.sqrt(np.minimum(1.0, half)))
    far: Array = (place > 0) & (_since(times, 1) <= HOUR) & (kilometres > 1_000)
    return far


def _since(column: Array, rows: int) -> Array:
    since: Array = column - np.roll(column, rows)
    return since
