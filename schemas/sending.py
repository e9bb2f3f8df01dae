"""Send one file of events to its topic: paced, counted, each refused piece accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.inputs import (
    Bad,
    Format,
    Good,
    InputError,
    Source,
    detect_format,
    open_input,
    read_events,
)
from schemas.producer import EventProducer, InvalidEvent
from schemas.producer_metrics import metrics_served
from schemas.registry import Registry
from schemas.streams import Stream
from schemas.topics import end_offsets

KEPT_REFUSALS = 100

_REPORT_EVERY = 256


class BadInput(Exception):
    """A piece of input that is no event, met while none may be skipped."""


@dataclass(frozen=True)
class Sending:
    """What to send and how; `rate` is events per second, None means no bound.

    Metrics are served on `metrics_port` of `metrics_host` meanwhile, without a port not at all.
    """

    path: Path
    format: Format | None = None
    rate: float | None = None
    limit: int | None = None
    skip_bad: bool = False
    ignore_unknown: bool = False
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


@dataclass(frozen=True)
class Sent:
    """What a sending did; `refusals` holds the first `KEPT_REFUSALS` of `skipped` pieces."""

    format: Format
    events: int
    skipped: int
    refusals: tuple[Bad, ...]
    seconds: float
    end_offsets: dict[int, int]


Report = Callable[[int, float | None], None]


def send_file(
    kafka: Mapping[str, Any],
    registry: Registry,
    stream: Stream,
    order: Sending,
    report: Report = lambda events, share: None,
) -> Sent:
    """Carry out `order` and wait until Kafka holds every event.

    `report` is told the number of events so far and the share of the work done, if known. Raises
    `BadInput` at the first bad piece unless they are skipped; events before it are sent.
    """
    started = time.monotonic()
    with open_input(order.path) as source:
        file_format = order.format or detect_format(source)
        pieces = read_events(source, stream, file_format, ignore_unknown=order.ignore_unknown)
        with (
            EventProducer(kafka, registry, stream) as producer,
            metrics_served(producer, order.metrics_host, order.metrics_port),
        ):
            try:
                skipped, refusals = _send_all(producer, pieces, source, order, report)
            except (BadInput, InputError):
                # Whoever is told what was sent goes on after it.
                producer.flush()
                raise
    return Sent(
        file_format,
        producer.sent,
        skipped,
        refusals,
        time.monotonic() - started,
        end_offsets(kafka, stream.topic),
    )


def _send_all(
    producer: EventProducer,
    pieces: Iterator[Good | Bad],
    source: Source,
    order: Sending,
    report: Report,
) -> tuple[int, tuple[Bad, ...]]:
    pace = _Pace(order.rate)
    skipped = 0
    refusals: list[Bad] = []
    for piece in pieces:
        pace.wait(producer.sent)
        bad = _send_one(producer, piece)
        if bad is None:
            if producer.sent % _REPORT_EVERY == 0 or order.rate:
                report(producer.sent, _share(producer.sent, source, order))
            if producer.sent == order.limit:
                break
            continue
        if not order.skip_bad:
            raise BadInput(
                f"{bad.where}: {bad.why}. {producer.sent} events before it were sent; mend the "
                "input, or pass --skip-bad to go on past such pieces."
            )
        skipped += 1
        if len(refusals) < KEPT_REFUSALS:
            refusals.append(bad)
    report(producer.sent, 1.0)
    return skipped, tuple(refusals)


def _send_one(producer: EventProducer, piece: Good | Bad) -> Bad | None:
    if isinstance(piece, Bad):
        return piece
    try:
        producer.send(piece.event)
    except InvalidEvent as error:
        return Bad(piece.where, str(error))
    return None


def _share(sent: int, source: Source, order: Sending) -> float | None:
    shares = [source.read_bytes / source.size] if source.size else []
    if order.limit:
        shares.append(sent / order.limit)
    return max(shares, default=None)


class _Pace:
    """Holds a loop back to `rate` turns a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._started = time.monotonic()

    def wait(self, turns: int) -> None:
        """Return when `turns` turns are due."""
        if self._rate is None:
            return
        ahead = self._started + turns / self._rate - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
