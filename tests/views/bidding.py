"""The bidding job's views, computed anew in plain Python."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.generators import Event, World
from bench.generators import bidding as market

JOB = "bidding"
START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
MINUTE, DAY = 60_000, 86_400_000
CLOSING = "~closing"

_CAMPAIGN_MINUTE = ("campaign_id", "window_start", "window_end")
COLUMNS = {
    "sites_per_minute": (
        "site",
        "window_start",
        "window_end",
        "offers",
        "offers_bid_on",
        "bid_rate",
    ),
    "win_rate_per_minute": (
        *_CAMPAIGN_MINUTE,
        "bids_made",
        "bids_won",
        "win_rate",
        "mean_bid_micros",
    ),
    "click_through_per_minute": (*_CAMPAIGN_MINUTE, "shown", "clicked", "click_through_rate"),
    "campaign_spend_per_minute": (
        *_CAMPAIGN_MINUTE,
        "spent_micros",
        "spent_today_micros",
        "budget_micros",
        "budget_share",
        "minute_of_day",
    ),
    "pacing_alerts": (
        *_CAMPAIGN_MINUTE,
        "spent_today_micros",
        "even_pace_micros",
        "budget_micros",
    ),
}
_LATEST = "toDateTime64('2026-01-07 00:00:00', 3, 'UTC')"
WHERE = dict.fromkeys(COLUMNS, f"window_start < {_LATEST}")


def events() -> World:
    """Return nine hundred offers with what follows, before and past midnight."""
    return market.generate(seed=17, count=2_700, start_ms=START + 15 * 3_600_000 + 20 * MINUTE)


def closing(stream: str, time_ms: int) -> dict[str, Any]:
    """Return an event of a site or campaign of its own."""
    made = {
        "bid_requests": market.bid_request(time_ms, CLOSING, CLOSING),
        "bids": market.bid(time_ms, CLOSING, CLOSING, 0),
        "impressions": market.impression(time_ms, CLOSING, CLOSING, 0, 1),
        "clicks": market.click(time_ms, CLOSING, CLOSING),
    }[stream]
    return {**made, "event_id": CLOSING}


def expected(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each view."""
    requests, bids = world["bid_requests"], world["bids"]
    shown, clicks = world["impressions"], world["clicks"]
    spend = _spend(shown)
    return {
        "sites_per_minute": [
            (*key, len(found), hits, hits / len(found))
            for key, found in _by_minute(requests, "site").items()
            for hits in [sum(_followed(e, bids, MINUTE) for e in found)]
        ],
        "win_rate_per_minute": [
            (*key, len(found), won, won / len(found), _total(found, "bid_micros") / len(found))
            for key, found in _by_minute(bids, "campaign_id").items()
            for won in [sum(_followed(e, shown, MINUTE, "campaign_id") for e in found)]
        ],
        "click_through_per_minute": [
            (*key, len(found), hits, hits / len(found))
            for key, found in _by_minute(shown, "campaign_id").items()
            for hits in [sum(_followed(e, clicks, 10 * MINUTE) for e in found)]
        ],
        "campaign_spend_per_minute": spend,
        "pacing_alerts": [alert for row in spend if (alert := _alert(row))],
    }


def _by_minute(found: list[Event], field: str) -> dict[tuple[Any, ...], list[Event]]:
    groups: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in found:
        start = event["event_time"] // MINUTE * MINUTE
        groups[event[field], start, start + MINUTE].append(event)
    return groups


def _followed(event: Event, later: list[Event], within: int, *same: str) -> bool:
    return any(
        0 <= e["event_time"] - event["event_time"] <= within
        and all(e[field] == event[field] for field in ("request_id", *same))
        for e in later
    )


def _total(found: list[Event], field: str) -> int:
    return sum(e[field] for e in found)


def _spend(shown: list[Event]) -> list[tuple[Any, ...]]:
    rows = []
    for (campaign, start, end), found in _by_minute(shown, "campaign_id").items():
        own = [e for e in shown if e["campaign_id"] == campaign]
        today = [e for e in own if start // DAY * DAY <= e["event_time"] < end]
        spent, budget = _total(today, "price_micros"), max(e["daily_budget_micros"] for e in found)
        minute = (end - 1) % DAY // MINUTE + 1
        row = (_total(found, "price_micros"), spent, budget, spent / budget, minute)
        rows.append((campaign, start, end, *row))
    return rows


def _alert(row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    campaign, start, end, spent, spent_today, budget, _, minute = row
    pace = budget * minute // 1440
    is_ahead = spent_today > pace + budget // 10
    was_ahead = spent_today - spent > budget * (minute - 1) // 1440 + budget // 10
    if not is_ahead or was_ahead:
        return None
    return (campaign, start, end, spent_today, pace, budget)
