"""Sites that offer places, campaigns that bid for them, advertisements shown and clicked on."""

from __future__ import annotations

import random

from bench.generators import Event, World

_MINUTE = 60_000
_SPAN = 90 * _MINUTE
_SITES = ("forum", "news", "weather")
_CAMPAIGNS = {"boots": 900_000, "cakes": 2_000_000, "dunes": 60_000_000, "extra": 400_000}
"""Daily budget by campaign; the first soon spends ahead of it, the third never does."""


def generate(seed: int, count: int, start_ms: int) -> World:
    """Return about `count` events: offers within 90 minutes, and what follows on them.

    Some answers come exactly at the end of the time they are waited for, or a millisecond later.
    """
    chance = random.Random(seed)
    world: World = {"bid_requests": [], "bids": [], "impressions": [], "clicks": []}
    for number in range(max(1, count // 3)):
        request, moment = f"request-{number}", start_ms + chance.randrange(_SPAN)
        world["bid_requests"].append(bid_request(moment, request, chance.choice(_SITES)))
        bids = [
            bid(moment + _wait(chance, 2_000, _MINUTE), request, campaign, chance.randrange(9_000))
            for campaign in _CAMPAIGNS
            if chance.random() < 0.3
        ]
        world["bids"] += bids
        if bids and chance.random() < 0.8:
            world["impressions"].append(won := _shown(chance, max(bids, key=_price)))
            if chance.random() < 0.2:
                world["clicks"] += _clicks(chance, won)
    for name, events in world.items():
        for number, event in enumerate(events):
            event["event_id"] = f"{name}-{number}"
        events.sort(key=lambda e: (e["event_time"], e["event_id"]))
    return world


def bid_request(time_ms: int, request_id: str, site: str) -> Event:
    """Return an offer of a place on `site`."""
    return {"event_id": "", "event_time": time_ms, "request_id": request_id, "site": site}


def bid(time_ms: int, request_id: str, campaign_id: str, bid_micros: int) -> Event:
    """Return a bid for an offer."""
    return {**click(time_ms, request_id, campaign_id), "bid_micros": bid_micros}


def impression(
    time_ms: int, request_id: str, campaign_id: str, price_micros: int, daily_budget_micros: int
) -> Event:
    """Return an advertisement shown, with what it cost and what may be spent a day."""
    cost = {"price_micros": price_micros, "daily_budget_micros": daily_budget_micros}
    return {**click(time_ms, request_id, campaign_id), **cost}


def click(time_ms: int, request_id: str, campaign_id: str) -> Event:
    """Return a click on the advertisement shown for an offer."""
    event = {"event_id": "", "event_time": time_ms}
    return {**event, "request_id": request_id, "campaign_id": campaign_id}


def _price(bid: Event) -> int:
    price: int = bid["bid_micros"]
    return price


def _shown(chance: random.Random, bid: Event) -> Event:
    moment, campaign = bid["event_time"] + _wait(chance, 5_000, _MINUTE), bid["campaign_id"]
    # The budget grows by a tenth in the middle.
    budget = _CAMPAIGNS[campaign] * (11 if moment // _MINUTE % 60 > 30 else 10) // 10
    return impression(moment, bid["request_id"], campaign, bid["bid_micros"], budget)


def _clicks(chance: random.Random, shown: Event) -> list[Event]:
    first = shown["event_time"] + _wait(chance, 3 * _MINUTE, 10 * _MINUTE)
    moments = [first, first + 1_000] if chance.random() < 0.2 else [first]
    return [click(moment, shown["request_id"], shown["campaign_id"]) for moment in moments]


def _wait(chance: random.Random, usual_ms: int, longest_ms: int) -> int:
    """Return a usual wait, or now and then the longest that counts, or one that is too long."""
    odd = chance.randrange(20)
    return {0: longest_ms, 1: longest_ms + 1, 2: 0}.get(odd, chance.randrange(usual_ms))
