"""What the name of a topic says: the view or stream behind it, and the version. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = "[A-Za-z0-9_]+"
_VIEW = rf"views\.({_NAME})\.v([0-9]+)"
_RAW = rf"(dlq|late)\.({_NAME})(\.v([0-9]+))?"


class UnknownTopicName(ValueError):
    """A topic that holds neither a view's rows nor dead letters nor late events."""


@dataclass(frozen=True)
class ViewTopic:
    """Topic with the revisions of a view's rows."""

    view: str
    version: int

    @property
    def table(self) -> str:
        """Table that the topic is loaded into."""
        return f"{self.view}_v{self.version}"


@dataclass(frozen=True)
class DeadLetterTopic:
    """Topic with the events of a stream that the job at `version` refused."""

    stream: str
    version: int

    @property
    def table(self) -> str:
        """Table that the topic is loaded into, repeated records included."""
        return "dead_letters_loaded"


@dataclass(frozen=True)
class LateTopic:
    """Topic with the events of a stream that the job at `version` found later than allowed."""

    stream: str
    version: int

    @property
    def table(self) -> str:
        """Table that the topic is loaded into, repeated records included."""
        return "late_events_loaded"


Source = ViewTopic | DeadLetterTopic | LateTopic


def parse_topic(topic: str, prefix: str = "") -> Source:
    """Return what `topic` holds; `prefix` is that of the namespace, with its dot.

    Raises `UnknownTopicName`.
    """
    name = topic.removeprefix(prefix) if topic.startswith(prefix) else ""
    if found := re.fullmatch(_VIEW, name):
        return ViewTopic(found[1], int(found[2]))
    if found := re.fullmatch(_RAW, name):
        version = int(found[4] or 1)
        return (DeadLetterTopic if found[1] == "dlq" else LateTopic)(found[2], version)
    raise UnknownTopicName(
        f'"{topic}" is no topic to load; those are {prefix}views.<view>.v<N>, '
        f"{prefix}dlq.<stream> and {prefix}late.<stream>."
    )


def subscription(prefix: str = "") -> list[str]:
    """Return the patterns of all topics to load, for a Kafka consumer's `subscribe`."""
    # The consumer's own regular expressions read the anchors and classes used here as Python does.
    return [f"^{re.escape(prefix)}{pattern}$" for pattern in (_VIEW, _RAW)]
