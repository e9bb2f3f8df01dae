"""The topics of a comparison: events, written once for equal worlds, and what contenders write."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

from bench.peers.protocol import Source
from bench.worlds import World
from deploy.console import progress_bar
from deploy.settings import Settings
from schemas.producer import EventProducer
from schemas.registry import Registry
from schemas.streams import Stream
from schemas.topics import delete_topics, end_offsets, topic_names

Filled = tuple[Settings, tuple[Source, ...]]
"""The settings of a world's namespace, and its topics."""
_MILLISECOND = timedelta(milliseconds=1)
_PEERS = "bench-"


@dataclass
class Worlds:
    """Fills topics in a namespace for each world, and deletes what is no longer wanted.

    `there` are the topics from before, which stay.
    """

    settings: Settings
    there: frozenset[str]
    _namespaces: list[str] = field(default_factory=list)
    _filled: dict[World, Filled] = field(default_factory=dict)

    def fill(self, world: World) -> Filled:
        """Write `world` to topics of its own, if no equal one is there."""
        if world not in self._filled:
            there = self.settings.model_copy(update={"namespace": f"c{uuid.uuid4().hex[:6]}"})
            self._namespaces.append(there.namespace)
            self._filled[world] = there, tuple(_fill(there, world))
        return self._filled[world]

    def clear(self) -> None:
        """Leave nothing but the events: a view's topic is the same for each question and run."""
        self._delete({source.topic for _, topics in self._filled.values() for source in topics})

    def drop(self) -> None:
        """Delete the events too."""
        self._delete(())

    def _delete(self, kept: Collection[str]) -> None:
        new = topic_names(self.settings.kafka_client) - self.there
        names = of_comparison(new, self._namespaces) - {*kept}
        delete_topics(self.settings.kafka_client, names)


def of_comparison(names: Iterable[str], namespaces: Collection[str]) -> set[str]:
    """Return which topics are of those namespaces, or of a peer, which names its own `bench-…`."""
    prefixes = tuple(f"{namespace}." for namespace in namespaces)
    return {name for name in names if name.startswith(prefixes) or _PEERS in name}


def _fill(settings: Settings, world: World) -> Iterator[Source]:
    """Write `world` to topics of its own."""
    for declared in world.streams:
        stream = replace(declared, namespace=settings.namespace)
        with (
            Registry(**settings.registry_access) as registry,
            EventProducer(settings.kafka_client, registry, stream) as producer,
            progress_bar(unit="events") as progress,
        ):
            bar = progress.add_task(stream.topic, total=None)
            for batch in world.batches(stream.name):
                producer.send_batch(batch)
                progress.update(bar, completed=producer.sent)
        yield _source(settings, stream, producer.sent)


def _source(settings: Settings, stream: Stream, events: int) -> Source:
    ends = end_offsets(settings.kafka_client, stream.topic)
    return Source(
        stream=stream.name,
        topic=stream.topic,
        ends={str(partition): end for partition, end in ends.items()},
        events=events,
        schema=stream.schema,
        disorder_ms=stream.disorder // _MILLISECOND,
        lateness_ms=stream.allowed_lateness // _MILLISECOND,
    )
