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
        "budget_before_micros",
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
    """Return nine hundred offers with what follows, before and past midnight, and odd ones.

    One bid and one advertisement in twenty is told of twice. Of another one in twenty another
    campaign tells of a click, which is none on it.
    """
    world = market.generate(seed=17, count=2_700, start_ms=START + 15 * 3_600_000 + 20 * MINUTE)
    odd = {"impressions": _spenders()}
    for name in ("bids", "impressions"):
        odd[name] = odd.get(name, []) + [dict(event) for event in world[name][::20]]
    odd["clicks"] = [
        market.click(shown["event_time"] + 1, shown["request_id"], "stranger")
        | {"event_id": f"strange-{number}"}
        for number, shown in enumerate(world["impressions"][1::20])
    ]
    return {
        name: sorted(found + odd.get(name, []), key=lambda e: e["event_time"])
        for name, found in world.items()
    }


def _spenders() -> list[Event]:
    """Return advertisements of a campaign whose budget is cut, and of one that waits.

    The cut puts the one ahead of its pace; the other is ahead, falls behind, and gets ahead again.
    """
    late, midnight = START + 15 * 60 * MINUTE + 30 * MINUTE, START + 16 * 60 * MINUTE
    spent = [
        ("cut", late, 700_000, 2_000_000),
        ("cut", late + MINUTE, 10, 600_000),
        ("waits", midnight + 1_000, 145_500, 1_440_000),
        ("waits", midnight + 5 * MINUTE + 1_000, 10_000, 1_440_000),
    ]
    return [
        {**market.impression(at, f"{who}-{at}", who, *money), "event_id": f"{who}-{at}"}
        for who, at, *money in spent
    ]


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
    requests, bids = world["bid_requests"], _once(world["bids"])
    shown, clicks = _once(world["impressions"]), world["clicks"]
    spend = _spend(shown)
    alerts = [alert for before, row in _with_before(spend) if (alert := _alert(before, row))]
    assert sum(row[0] == "cut" for row in alerts) == 1
    assert sum(row[0] == "waits" for row in alerts) == 2
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
            for hits in [sum(_followed(e, clicks, 10 * MINUTE, "campaign_id") for e in found)]
        ],
        "campaign_spend_per_minute": [
            (*row[:6], before[5] if before else None, *row[6:])
            for before, row in _with_before(spend)
        ],
        "pacing_alerts": alerts,
    }


def _once(found: list[Event]) -> list[Event]:
    """Return the events without those told of again."""
    return list({event["event_id"]: event for event in found}.values())


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


def _with_before(
    spend: list[tuple[Any, ...]],
) -> list[tuple[tuple[Any, ...] | None, tuple[Any, ...]]]:
    """Return each row behind the one before of its campaign and day, if there is one."""
    pairs, newest = [], {}
    for row in sorted(spend, key=lambda row: row[1]):
        day = row[0], row[1] // DAY
        pairs.append((newest.get(day), row))
        newest[day] = row
    return pairs


def _alert(before: tuple[Any, ...] | None, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    campaign, start, end, _, spent_today, budget, _, minute = row
    if not _is_ahead(spent_today, budget, minute):
        return None
    if before and _is_ahead(before[4], before[5], minute - 1):
        return None
    return (campaign, start, end, spent_today, budget * minute // 1440, budget)


def _is_ahead(spent: int, budget: int, minute: int) -> bool:
    return spent > budget * minute // 1440 + budget // 10
