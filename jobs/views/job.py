"""A job: the views it writes, over the streams it reads. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.views.base import InvalidView, View
from jobs.views.names import check_name, check_once
from jobs.views.queried import QueryView
from schemas.streams import STREAMS, Stream


class SeveralStreams(ValueError):
    """A job that reads several streams, where only one can be handled."""


@dataclass(frozen=True)
class Job:
    """One Flink job: the views it writes, over the streams it reads."""

    name: str
    streams: tuple[Stream, ...]
    views: tuple[View, ...]

    def __post_init__(self) -> None:
        # Those of other jobs have tables, too.
        streams = {*STREAMS, *(stream.name for stream in self.streams)}
        for view in self.views:
            check_name(view.name, streams)
        check_once((view.name for view in self.views), f"job {self.name} has")
        for view in self.views:
            if strangers := [s.name for s in view.streams if s not in self.streams]:
                raise InvalidView(f"{view.name} reads {strangers}, which job {self.name} does not.")
        if len({stream.topic for stream in self.streams}) < len(self.streams):
            raise InvalidView(f"job {self.name} reads a topic twice; one of its streams will do.")
        queries = [view for view in self.views if isinstance(view, QueryView)]
        for place, query in enumerate(queries):
            through = {s for v in queries[:place] if query.names(v) for s in v.sources}
            for stream in query.sources:
                if stream not in through and not query.names(stream):
                    raise InvalidView(f"{query.name}: its query does not read {stream.name}.")

    @property
    def stream(self) -> Stream:
        """The job's stream, where it reads only one."""
        if len(self.streams) > 1:
            names = ", ".join(stream.name for stream in self.streams)
            raise SeveralStreams(f"job {self.name} reads several streams: {names}.")
        return self.streams[0]

    def within(self, namespace: str) -> Job:
        """Return the same job over the topics of `namespace`."""
        streams = {s.name: replace(s, namespace=namespace) for s in self.streams}
        views = tuple(view.over(streams) for view in self.views)
        over = tuple(streams.values())
        return Job(over[0].prefixed(self.name), over, views)
