"""Put together once a second what all sources said last: the picture that live clients get."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from deploy.settings import Settings
from schemas.streams import STREAMS
from serving import panels
from serving.lanes import Lane, Reading
from serving.latency import ArrivalCurve
from serving.metrics import ServingMetrics
from serving.panels import Views
from serving.reading import QUERY_SECONDS
from serving.sources import FlinkSource, KafkaSource, ReplaySource
from sinks.clickhouse import UNKNOWN_DATABASE, ClickHouse, ClickHouseFailed

_LOG = logging.getLogger("kappa.serving")
PERIOD_SECONDS = 1.0
_HISTORY_SECONDS = 300
_RATE_SECONDS = 5.0
# The age of each view's newest row is read off all rows, and these may be many.
_REST_AFTER_VIEWS = 9.0


class Events:
    """How many events each stream has and gets a second, and how long they take into the views."""

    def __init__(self, ends: Callable[[], dict[str, int]], wall_clock: Callable[[], float]) -> None:
        self._ends = ends
        self._wall_clock = wall_clock
        self._totals: dict[str, deque[tuple[float, int]]] = {}
        self._curves: dict[str, ArrivalCurve] = {}

    def arrived(self) -> dict[str, Any]:
        """Read the topics' ends; return each stream's total, its rate and the rate's history."""
        ends, now = self._ends(), self._wall_clock()
        for stream, total in ends.items():
            kept = self._totals.setdefault(stream, deque())
            if kept and kept[-1][1] > total:
                kept.clear()
            kept.append((now, total))
            while kept[0][0] < now - _HISTORY_SECONDS - 1:
                kept.popleft()
            for reader in (stream, *(one.name for one in STREAMS.values() if one.reads == stream)):
                self._curve(reader).arrived(now, total)
        return {
            stream: {"total": total, "rate": self._rate(stream), "history": self._rates(stream)}
            for stream, total in ends.items()
        }

    def placed(self, accounts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Note the events accounted for; return them by stream with what they waited."""
        now = self._wall_clock()
        found: dict[str, Any] = {}
        for stream, account in accounts.items():
            curve = self._curve(stream)
            curve.placed(now, sum(account[count] for count in ("aggregated", "late", "dead")))
            reads = STREAMS[stream].reads if stream in STREAMS else ""
            found[stream] = {**account, "reads": reads or stream, **asdict(curve.report(now))}
        return found

    def _curve(self, stream: str) -> ArrivalCurve:
        return self._curves.setdefault(stream, ArrivalCurve())

    def _rate(self, stream: str) -> float:
        """Return the events a second of the last few seconds, at least since the look before."""
        kept = self._totals[stream]
        now, total = kept[-1]
        recent = [one for one in kept if one[0] >= now - _RATE_SECONDS - 0.5]
        first, before = recent[0] if len(recent) > 1 or len(kept) < 2 else kept[-2]
        return round((total - before) / (now - first), 1) if now > first else 0.0

    def _rates(self, stream: str) -> list[tuple[float, float]]:
        """Return pairs of epoch seconds and events a second since the pair before."""
        kept = list(self._totals[stream])
        return [
            (round(now, 3), round((total - before) / (now - first), 1))
            for (first, before), (now, total) in itertools.pairwise(kept)
            if now > first
        ]


def _answers(clickhouse: ClickHouse) -> bool:
    """Return whether ClickHouse answers, also while there is no database; or raise why not."""
    try:
        clickhouse.query("SELECT 1")
    except ClickHouseFailed as error:
        if error.code != UNKNOWN_DATABASE:
            raise
    return True


class Sampler:
    """The lanes of all sources, and the picture made of them."""

    def __init__(
        self,
        settings: Settings,
        build: str,
        metrics: ServingMetrics,
        views: Callable[[], Views],
        watched: Callable[[], bool],
    ) -> None:
        self._database = settings.database
        self._build = build
        self._number = 0
        kafka = KafkaSource(settings)
        clickhouse = ClickHouse(settings, reader=True, timeout=QUERY_SECONDS)
        events = Events(kafka.ends, time.time)

        def lane(
            name: str,
            read: Callable[[], Any],
            every: float = PERIOD_SECONDS,
            rest_factor: float = 1.0,
        ) -> Lane:
            made = Lane(name, read, every, watched, metrics.took, rest_factor)
            metrics.watch_age(name, lambda: time.time() - made.reading.at)
            return made

        def asking(panel: Callable[[ClickHouse, Views], Any]) -> Callable[[], Any]:
            clickhouse = ClickHouse(settings, reader=True, timeout=QUERY_SECONDS)
            return lambda: panel(clickhouse, views())

        accounted = asking(panels.accounts)
        lags = lane("lags", kafka.lags, 2 * PERIOD_SECONDS)
        replays = ReplaySource(settings, lambda: lags.reading.data)
        self.lanes = [
            lane("events", events.arrived),
            lane("accounts", lambda: events.placed(accounted())),
            lane("traffic", asking(panels.traffic)),
            lane("views", asking(panels.view_states), rest_factor=_REST_AFTER_VIEWS),
            lane("jobs", FlinkSource(settings)),
            lags,
            lane("replays", replays, 2 * PERIOD_SECONDS),
            lane("clickhouse", lambda: _answers(clickhouse)),
        ]

    def start(self) -> None:
        """Begin to read all sources."""
        for lane in self.lanes:
            lane.start()

    def hurry(self) -> None:
        """Read all sources at once, because somebody begins to watch."""
        for lane in self.lanes:
            lane.hurry()

    def end(self) -> None:
        """Stop reading."""
        for lane in self.lanes:
            lane.end()

    def clickhouse_answers(self) -> Reading:
        """Return whether ClickHouse answered last; no other lane's cost plays a part in it."""
        return next(lane.reading for lane in self.lanes if lane.section == "clickhouse")

    def picture(self) -> str:
        """Return the newest picture as JSON; instants are in epoch milliseconds."""
        self._number += 1
        sections = {
            lane.section: {
                "at": round(reading.at * 1000),
                "problem": reading.problem,
                "data": reading.data,
            }
            for lane in self.lanes
            for reading in [lane.reading]
        }
        picture = {
            "build": self._build,
            "number": self._number,
            "at": round(time.time() * 1000),
            "database": self._database,
            "sections": sections,
        }
        return json.dumps(picture, separators=(",", ":"), allow_nan=False, default=str)

    async def run(self, publish: Callable[[str], None]) -> None:
        """Publish a picture each second until cancelled."""
        while True:
            try:
                publish(self.picture())
            except (TypeError, ValueError):
                _LOG.exception("this second's picture could not be written")
            left = PERIOD_SECONDS - time.time() % PERIOD_SECONDS
            # A timer may ring a moment early, and the second must not be done twice.
            await asyncio.sleep(left if left > PERIOD_SECONDS / 2 else left + PERIOD_SECONDS)
