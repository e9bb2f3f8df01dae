"""`kappa generate`: send made-up events to a job's streams, at once or as time goes by."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from deploy import completion
from deploy.console import CommandError, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from bench.generators.live import Arrival
    from schemas.producer import EventProducer
    from schemas.streams import Stream

_POLL_SECONDS = 0.05
_WORLD_EVENTS = 2_000
_EVENTS = 5_000


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    app.command("generate")(generate)


def generate(
    job: Annotated[
        str,
        typer.Argument(
            help="Whose streams, as `kappa views` names the jobs.", autocompletion=completion.jobs
        ),
    ],
    events: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"About how many events; without, {_EVENTS:,}, and with --rate until Ctrl-C.",
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Send live, so many a second; 0 for all at once.")
    ] = 0,
    hours: Annotated[
        float, typer.Option(min=0.01, help="Without --rate: how far back they happened.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal events.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Send generated events to the streams of a job, out of order as real ones are.

    Without --rate they lie in the past hours and are sent at once; with it they happen now, until
    there are as many as --events says, or Ctrl-C.

    Example: kappa generate orders --rate 50
    """
    from dataclasses import replace

    from bench.generators.live import NoGenerator
    from deploy.settings import Settings
    from jobs.catalogue import UnknownJob, job_named
    from schemas.producer import DeliveryFailed, EventProducer, InvalidEvent
    from schemas.registry import Registry, RegistryError
    from schemas.topics import KafkaUnavailable, TopicMismatch

    settings = Settings()
    try:
        streams = {
            stream.name: replace(stream, namespace=settings.namespace)
            for stream in job_named(job).streams
        }
        with ExitStack() as stack:
            registry = stack.enter_context(Registry(**settings.registry_access, retry_for=10.0))
            producers = {
                name: stack.enter_context(EventProducer(settings.kafka_client, registry, stream))
                for name, stream in streams.items()
            }
            bar = stack.enter_context(progress_bar(unit="events"))
            if rate:
                worlds = _live(job, streams, seed, events, rate)
            else:
                events = events or _EVENTS
                worlds = _past(job, streams, seed, events, hours * 3_600_000)
            task = bar.add_task(job, total=events)
            # That is how one ends what is live: all that was sent is confirmed and counted then.
            with suppress(KeyboardInterrupt) if rate else nullcontext():
                for arrival in chain.from_iterable(worlds):
                    _send(producers, arrival, live=bool(rate))
                    bar.advance(task)
    except (
        DeliveryFailed,
        InvalidEvent,
        KafkaUnavailable,
        NoGenerator,
        RegistryError,
        TopicMismatch,
        UnknownJob,
    ) as error:
        raise CommandError(str(error)) from error
    counts = {name: producer.sent for name, producer in producers.items()}
    if as_json:
        print_json(counts)
    else:
        print_table("Sent", ("stream", "events"), list(counts.items()))


def _past(
    job: str, streams: dict[str, Stream], seed: int, events: int, span_ms: float
) -> Iterator[list[Arrival]]:
    """Yield the arrivals of about so many events up to now."""
    yield _arrivals(job, streams, seed, events, time.time() * 1000 - span_ms, span_ms)


def _live(
    job: str, streams: dict[str, Stream], seed: int, events: int | None, rate: float
) -> Iterator[list[Arrival]]:
    """Yield the arrivals of one world after another from now on, until there are `events`."""
    given, begin_ms = 0, time.time() * 1000
    while events is None or given < events:
        count = _WORLD_EVENTS if events is None else min(_WORLD_EVENTS, events - given)
        span_ms = count / rate * 1000
        world = _arrivals(job, streams, seed, count, begin_ms, span_ms)
        yield world
        given, begin_ms, seed = given + len(world), begin_ms + span_ms, seed + 1


def _arrivals(
    job: str, streams: dict[str, Stream], seed: int, count: int, begin_ms: float, span_ms: float
) -> list[Arrival]:
    from bench.generators.live import arrivals

    return list(arrivals(job, streams, seed, count, int(begin_ms), int(span_ms)))


def _send(producers: dict[str, EventProducer], arrival: Arrival, *, live: bool) -> None:
    while live and time.time() * 1000 < arrival.at_ms:
        producers[arrival.stream].flush()
        time.sleep(_POLL_SECONDS)
    producers[arrival.stream].send(arrival.event)
