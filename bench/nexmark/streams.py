"""Nexmark's streams of persons, auctions and bids; no job of the project reads them. No I/O."""

from __future__ import annotations

from datetime import timedelta

from bench.streams import BenchStream
from schemas.streams import Length, Range, Rule, Stream

_PRICE = 10**9
"""Nexmark's prices end at a million dollars; an auction's reserve at two."""


def _stream(kind: str, key: str, required: tuple[str, ...], *rules: Rule) -> Stream:
    """Return a stream whose events come in order, as Nexmark's do, but may be late."""
    return BenchStream(
        name=f"nexmark_{kind}",
        key_field=key,
        disorder=timedelta(seconds=2),
        allowed_lateness=timedelta(seconds=10),
        pane=timedelta(seconds=2),
        required=required,
        rules=tuple(Length(name, 1, 32) for name in required) + rules,
        schema_file=f"nexmark_{kind}.avsc",
        description=f"Nexmark's {kind}.",
    )


PERSONS = _stream("persons", "id", ("id",), Length("name", 1, 256))
AUCTIONS = _stream(
    "auctions",
    "id",
    ("id", "seller"),
    Range("initial_bid", 1, _PRICE),
    Range("reserve", 1, _PRICE),
)
BIDS = _stream("bids", "auction", ("auction", "bidder"), Range("price", 1, _PRICE))
