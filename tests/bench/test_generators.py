"""Generated worlds: the same for the same seed, in time, and out of order within the bound."""

from __future__ import annotations

import pkgutil
from itertools import pairwise

import pytest

import bench.generators
from bench.generators import disordered
from bench.generators.live import NoGenerator, arrivals, generator_of
from jobs.catalogue import JOBS
from schemas.streams import STREAMS
from schemas.values import conform

START = 1_767_600_000_000
HOUR = 3_600_000
JOB_NAMES = sorted(
    m.name for m in pkgutil.iter_modules(bench.generators.__path__) if m.name in JOBS
)


@pytest.mark.parametrize("job", JOB_NAMES)
def test_equal_seeds_make_equal_worlds_that_follow_their_schemas(job: str) -> None:
    module = generator_of(job)
    world = module.generate(seed=1, count=300, start_ms=START)
    assert world == module.generate(seed=1, count=300, start_ms=START)
    assert world != module.generate(seed=2, count=300, start_ms=START)
    assert set(world) == {stream.name for stream in JOBS[job].streams}
    for name, events in world.items():
        assert events
        for event in events:
            assert conform(event, STREAMS[name].schema) == event
        times = [event["event_time"] for event in events]
        assert times == sorted(times)
        assert times[0] >= START


@pytest.mark.parametrize("job", JOB_NAMES)
def test_arrivals_keep_to_their_span_and_to_their_disorder(job: str) -> None:
    streams = {stream.name: stream for stream in JOBS[job].streams}
    found = list(arrivals(job, streams, seed=1, count=300, start_ms=START, span_ms=HOUR))
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(found))
    newest: dict[str, int] = {}
    for arrival in found:
        moment = arrival.event["event_time"]
        assert START <= moment <= START + HOUR
        assert moment <= arrival.at_ms
        newest[arrival.stream] = max(newest.get(arrival.stream, 0), moment)
        behind = newest[arrival.stream] - moment
        assert behind < streams[arrival.stream].disorder.total_seconds() * 1000


def test_disorder_is_real() -> None:
    events = [{"event_time": START + 100 * number} for number in range(1_000)]
    times = [event["event_time"] for event in disordered(events, 5_000, seed=3)]
    assert times != sorted(times)


def test_a_job_without_a_generator_is_named() -> None:
    with pytest.raises(NoGenerator, match='did you mean "page_views"'):
        generator_of("page_view")
