"""`kappa generate`: send made-up events to a job's streams, at once or as time goes by."""

from __future__ import annotations

import time
from contextlib import ExitStack
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
    events: Annotated[int, typer.Option(min=1, help="About how many events.")] = 5_000,
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

    Without --rate they lie in the past hours and are sent at once; with it they happen now.

    Example: kappa generate orders --events 20000 --rate 50
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
            task = bar.add_task(job, total=events)
            sent, seed_now = 0, seed
            begin_ms = time.time() * 1000 - (0 if rate else hours * 3_600_000)
            while sent < events:
                count = min(_WORLD_EVENTS, events - sent) if rate else events
                span_ms = count / rate * 1000 if rate else hours * 3_600_000
                for arrival in _arrivals(job, streams, seed_now, count, begin_ms, span_ms):
                    _send(producers, arrival, live=bool(rate))
                    sent += 1
                    bar.update(task, completed=min(sent, events))
                begin_ms, seed_now = begin_ms + span_ms, seed_now + 1
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
