"""What Nexmark's queries must answer, in pandas. No I/O.

Times are epoch milliseconds. The answers are those of all windows and sessions, as if a watermark
had passed them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

_SECOND = 1000
_GAP = 10 * _SECOND

World = Mapping[str, pd.DataFrame]
"""Events by kind: "persons", "auctions", "bids"."""


def windows(events: pd.DataFrame, size: int, slide: int) -> pd.DataFrame:
    """Return each event once for every window that it is in, with that window's ends."""
    last = events["event_time"] - events["event_time"] % slide
    copies = [events.assign(window_start=last - back) for back in range(0, size, slide)]
    found = pd.concat(copies, ignore_index=True)
    return found.assign(window_end=found["window_start"] + size)


def pass_through(world: World) -> pd.DataFrame:
    """q0: all bids."""
    bids = world["bids"].rename(columns={"event_time": "event_ms"})
    return bids[["auction", "bidder", "price", "event_ms", "url"]]


def bids_of_items(world: World) -> pd.DataFrame:
    """What q5 ranks: bids by auction in the last ten seconds, every two seconds."""
    bids = windows(world["bids"], 10 * _SECOND, 2 * _SECOND)
    return _counted(bids, ["window_start", "window_end", "auction"])


def hot_items(world: World) -> pd.DataFrame:
    """q5: the auction with the most of those, the lesser id of equals."""
    counts = bids_of_items(world)
    ranked = counts.sort_values(["num", "auction"], ascending=[False, True])
    return ranked.drop_duplicates("window_start")


def highest_bids(world: World) -> pd.DataFrame:
    """q7: the highest bid of ten seconds, of equals the lesser auction and bidder."""
    bids = windows(world["bids"], 10 * _SECOND, 10 * _SECOND)
    ranked = bids.sort_values(["price", "auction", "bidder"], ascending=[False, True, True])
    columns = ["window_start", "window_end", "price", "auction", "bidder"]
    return ranked.drop_duplicates("window_start")[columns]


def highest_prices(world: World) -> pd.DataFrame:
    """What q7 says without the bid."""
    return highest_bids(world)[["window_start", "window_end", "price"]]


def new_users(world: World) -> pd.DataFrame:
    """q8: who joined and opened an auction within the same ten seconds."""
    joined = windows(world["persons"], 10 * _SECOND, 10 * _SECOND)
    selling = windows(world["auctions"], 10 * _SECOND, 10 * _SECOND)
    selling = selling[["seller", "window_start"]].drop_duplicates()
    both = joined.merge(
        selling, left_on=["id", "window_start"], right_on=["seller", "window_start"]
    )
    return both[["id", "name", "window_start", "window_end"]]


def sessions(world: World) -> pd.DataFrame:
    """q11: bids of each bidder without a pause of more than ten seconds."""
    bids = world["bids"].sort_values(["bidder", "event_time"])
    pause = bids.groupby("bidder")["event_time"].diff()
    begins = pause.isna() | (pause > _GAP)
    groups = bids.groupby([bids["bidder"], begins.cumsum().rename("session")])["event_time"]
    found = groups.agg(num="size", session_start="min", session_end="max").reset_index()
    found["session_end"] += _GAP
    return found.drop(columns="session")


def bids_of_bidders(world: World) -> pd.DataFrame:
    """q12 in event time: bids by bidder in ten seconds."""
    bids = windows(world["bids"], 10 * _SECOND, 10 * _SECOND)
    return _counted(bids, ["window_start", "window_end", "bidder"])


def _counted(events: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return events.groupby(keys, sort=False).size().rename("num").reset_index()


ANSWERS: dict[str, Callable[[World], pd.DataFrame]] = {
    "q0": pass_through,
    "q5": hot_items,
    "q5_counts": bids_of_items,
    "q7": highest_bids,
    "q7_prices": highest_prices,
    "q8": new_users,
    "q11": sessions,
    "q12_event_time": bids_of_bidders,
}
