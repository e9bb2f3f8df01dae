"""Every stream of events: its topic, its time, and what a good event looks like. No I/O."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA_DIR = Path(__file__).parent


class UnknownStream(LookupError):
    """A stream name that nothing declares."""


@dataclass(frozen=True)
class Range:
    """Inclusive bounds of a number, or of an instant in epoch milliseconds; a null passes."""

    field: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Length:
    """Bounds of a string or bytes field's size in bytes; a null passes."""

    field: str
    minimum: int = 0
    maximum: int = 1024


@dataclass(frozen=True)
class OneOf:
    """The values that a string field may have; a null passes."""

    field: str
    values: tuple[str, ...]


Rule = Range | Length | OneOf

# So large that nobody pays more at once, and small enough that no sum of ninety million of them
# leaves 64 bits.
_MOST_MONEY = 100_000_000_000
# A terabyte, which no answer has: nine million of them are within 64 bits.
_MOST_BYTES = 1_000_000_000_000
# The end of the year 2199, in epoch milliseconds: beyond, clients of ClickHouse know no day.
_LAST_MS = 7_258_118_400_000 - 1


@dataclass(frozen=True)
class DeadLetterLimit:
    """How many dead letters of a partition are too many: the job stops and says why.

    `in_a_row` without a good event between them, or more than `share` of the last `events`.
    """

    in_a_row: int = 1_000
    share: float = 0.5
    events: int = 4_000

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """(n, m) where n dead letters within m offsets are too many."""
        return (self.in_a_row, self.in_a_row), (int(self.share * self.events) + 1, self.events)

    @property
    def remembered(self) -> int:
        """How many of the newest dead letters have to be known to judge the next."""
        return max(most for most, _ in self.windows) - 1


@dataclass(frozen=True)
class Stream:
    """A topic of Avro events and the promises its consumers rely on.

    `disorder` is how far an event may trail the newest event of its partition before the
    watermark passes it. `allowed_lateness` is how long past a window's end its events still
    correct it. `pane` is the granularity at which lateness is judged: the window missed is the
    pane, and every window over the stream is a multiple of it. A partition without events for
    `idle_timeout` no longer holds back the watermark; what it sends later, behind the others, may
    be late, so the timeout is longer than any stall that passes by itself. `reads` names the stream
    whose topic this one reads once more, for a second job over the same events: what becomes of
    them there has topics and an account of its own, under this stream's name. `namespace` prefixes
    every topic, so that several environments share one Kafka.
    """

    name: str
    key_field: str
    event_time_field: str = "event_time"
    disorder: timedelta = timedelta(seconds=10)
    allowed_lateness: timedelta = timedelta(minutes=5)
    pane: timedelta = timedelta(minutes=1)
    partitions: int = 4
    required: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    max_event_bytes: int = 64 * 1024
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit()
    idle_timeout: timedelta = timedelta(minutes=5)
    reads: str = ""
    description: str = ""
    namespace: str = ""

    def prefixed(self, topic: str) -> str:
        """Return `topic` as it is called in the stream's namespace."""
        return f"{self.namespace}.{topic}" if self.namespace else topic

    @property
    def topic(self) -> str:
        """Name of the Kafka topic with the events."""
        return self.prefixed(f"events.{self.reads or self.name}")

    @property
    def subject(self) -> str:
        """Registry subject of the topic's values."""
        return f"{self.topic}-value"

    @property
    def schema_path(self) -> str:
        """File of the current Avro schema, below `schemas/`."""
        return f"{self.reads or self.name}.avsc"

    @property
    def schema(self) -> dict[str, Any]:
        """The current Avro schema, parsed JSON."""
        return _load_schema(self.schema_path)

    def dead_letter_topic(self, version: int = 1) -> str:
        """Topic of the events a job at `version` refused; version 1 has no suffix."""
        return self.prefixed(_versioned(f"dlq.{self.name}", version))

    def late_topic(self, version: int = 1) -> str:
        """Topic of the events a job at `version` found later than allowed."""
        return self.prefixed(_versioned(f"late.{self.name}", version))


def _versioned(topic: str, version: int) -> str:
    return topic if version == 1 else f"{topic}.v{version}"


@cache
def _load_schema(file_name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMA_DIR / file_name).read_text())
    return schema


PAGE_VIEWS = Stream(
    name="page_views",
    key_field="user_id",
    description="Requests for pages of a web site.",
    required=("event_id", "user_id", "page_id"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("user_id", minimum=1, maximum=256),
        Length("page_id", minimum=1, maximum=2048),
        Length("referrer", maximum=8192),
        Length("user_agent", maximum=4096),
        Range("duration_ms", minimum=0, maximum=24 * 3600 * 1000),
        Range("status", minimum=100, maximum=599),
        Range("bytes_sent", minimum=0, maximum=_MOST_BYTES),
    ),
)

PAGES = Stream(
    name="pages",
    key_field="page_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    # Written rarely: what joins it waits this long for its watermark, and not five minutes.
    idle_timeout=timedelta(minutes=1),
    description="Which category a page is in, from when on.",
    required=("event_id", "page_id", "category"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("page_id", minimum=1, maximum=2048),
        Length("category", minimum=1, maximum=256),
    ),
)

PAGE_REQUESTS = replace(
    PAGE_VIEWS,
    name="page_requests",
    reads="page_views",
    description="The page views once more, for the job that joins them with what pages are.",
)

DEVICE_READINGS = Stream(
    name="device_readings",
    key_field="device_id",
    description="Temperatures that devices measure each ten seconds.",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    required=("event_id", "device_id", "temperature"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("device_id", minimum=1, maximum=256),
        Range("temperature", minimum=-300, maximum=5000),
        Range("battery", minimum=0, maximum=1),
    ),
)

TRANSACTIONS = Stream(
    name="transactions",
    key_field="user_id",
    description="Card payments.",
    required=("event_id", "user_id", "card_id", "amount_cents"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("user_id", minimum=1, maximum=256),
        Length("card_id", minimum=1, maximum=64),
        Range("amount_cents", minimum=1, maximum=_MOST_MONEY),
        Length("merchant", maximum=256),
        Range("latitude", minimum=-90, maximum=90),
        Range("longitude", minimum=-180, maximum=180),
    ),
)

# A stream that others are joined with is waited for: while it is idle, they go on without it, and
# what it sends then finds its partners gone.
_JOINED_IDLE_TIMEOUT = timedelta(hours=1)

ORDERS = Stream(
    name="orders",
    key_field="order_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="What becomes of orders: placed, shipped, delivered, refunded.",
    required=("event_id", "order_id", "customer_id", "status", "category"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("order_id", minimum=1, maximum=64),
        Length("customer_id", minimum=1, maximum=256),
        OneOf("status", ("placed", "shipped", "delivered", "refunded")),
        Length("category", minimum=1, maximum=256),
        Range("amount_cents", minimum=0, maximum=_MOST_MONEY),
        Range("placed_at", minimum=0, maximum=_LAST_MS),
    ),
)

PAYMENTS = Stream(
    name="payments",
    key_field="order_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Payments for orders, as payment providers confirm them.",
    required=("event_id", "payment_id", "order_id"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("payment_id", minimum=1, maximum=64),
        Length("order_id", minimum=1, maximum=64),
        Range("paid_cents", minimum=0, maximum=_MOST_MONEY),
    ),
)

CUSTOMER_SEGMENTS = Stream(
    name="customer_segments",
    key_field="customer_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    # Written rarely: what joins it waits this long for its watermark, and not five minutes.
    idle_timeout=timedelta(minutes=1),
    description="Which segment a customer is in, from when on.",
    required=("event_id", "customer_id", "segment"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("customer_id", minimum=1, maximum=256),
        Length("segment", minimum=1, maximum=64),
    ),
)

PLAYBACKS = Stream(
    name="playbacks",
    key_field="title_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    description="What players report while films and series play.",
    required=("event_id", "session_id", "title_id", "device", "country"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("session_id", minimum=1, maximum=64),
        Length("title_id", minimum=1, maximum=256),
        Length("device", minimum=1, maximum=64),
        Length("country", minimum=2, maximum=2),
        Range("watched_ms", minimum=0, maximum=24 * 3600 * 1000),
        Range("completed_percent", minimum=0, maximum=100),
    ),
)

_AUCTION_RULES: tuple[Rule, ...] = (
    Length("event_id", minimum=1, maximum=64),
    Length("request_id", minimum=1, maximum=64),
)

BID_REQUESTS = Stream(
    name="bid_requests",
    key_field="request_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Advertising places on offer.",
    required=("event_id", "request_id", "site"),
    rules=(*_AUCTION_RULES, Length("site", minimum=1, maximum=256)),
)

BIDS = Stream(
    name="bids",
    key_field="request_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Bids of campaigns for the places on offer.",
    required=("event_id", "request_id", "campaign_id"),
    rules=(
        *_AUCTION_RULES,
        Length("campaign_id", minimum=1, maximum=64),
        Range("bid_micros", minimum=0, maximum=_MOST_MONEY),
    ),
)

IMPRESSIONS = Stream(
    name="impressions",
    key_field="request_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Advertisements shown, each after a bid that won.",
    required=("event_id", "request_id", "campaign_id"),
    rules=(
        *_AUCTION_RULES,
        Length("campaign_id", minimum=1, maximum=64),
        Range("price_micros", minimum=0, maximum=_MOST_MONEY),
        # Times the 1,440 minutes of a day it still fits.
        Range("daily_budget_micros", minimum=1, maximum=1_000_000_000_000_000),
    ),
)

CLICKS = Stream(
    name="clicks",
    key_field="request_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Clicks on advertisements shown.",
    required=("event_id", "request_id", "campaign_id"),
    rules=(*_AUCTION_RULES, Length("campaign_id", minimum=1, maximum=64)),
)

EXPOSURES = Stream(
    name="exposures",
    key_field="user_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Which users saw which variant of an experiment.",
    required=("event_id", "user_id", "experiment", "variant"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("user_id", minimum=1, maximum=256),
        Length("experiment", minimum=1, maximum=128),
        Length("variant", minimum=1, maximum=128),
    ),
)

CONVERSIONS = Stream(
    name="conversions",
    key_field="user_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    idle_timeout=_JOINED_IDLE_TIMEOUT,
    description="Users who did what experiments hope for.",
    required=("event_id", "user_id", "goal"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("user_id", minimum=1, maximum=256),
        Length("goal", minimum=1, maximum=128),
    ),
)

ITEM_VIEWS = Stream(
    name="item_views",
    key_field="user_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    description="Which items of a shop users look at.",
    required=("event_id", "user_id", "item_id"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("user_id", minimum=1, maximum=256),
        Length("item_id", minimum=1, maximum=256),
    ),
)

POSTS = Stream(
    name="posts",
    key_field="author_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    description="What people publish, with hashtags.",
    required=("event_id", "author_id"),
    rules=(
        Length("event_id", minimum=1, maximum=64),
        Length("author_id", minimum=1, maximum=256),
    ),
)

WORDS = Stream(
    name="words",
    key_field="event_id",
    allowed_lateness=timedelta(seconds=30),
    pane=timedelta(seconds=10),
    description="Texts of any kind, to count their words.",
    required=("event_id", "text"),
    rules=(Length("event_id", minimum=1, maximum=64),),
)

STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        PAGE_VIEWS,
        PAGES,
        PAGE_REQUESTS,
        DEVICE_READINGS,
        TRANSACTIONS,
        ORDERS,
        PAYMENTS,
        CUSTOMER_SEGMENTS,
        PLAYBACKS,
        BID_REQUESTS,
        BIDS,
        IMPRESSIONS,
        CLICKS,
        EXPOSURES,
        CONVERSIONS,
        ITEM_VIEWS,
        POSTS,
        WORDS,
    )
}


def stream_named(name: str) -> Stream:
    """Return the declared stream, or raise `UnknownStream` naming the nearest one."""
    if name in STREAMS:
        return STREAMS[name]
    near = difflib.get_close_matches(name, STREAMS, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"streams are: {', '.join(STREAMS)}."
    raise UnknownStream(f'"{name}" is no stream; {hint}')
