"""What a job does for an event's schema while the registry fails, refuses, or does not know it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import tenacity

from schemas.registry import RegistryError
from tests.schemas.test_registry_outage import ABSENT, FOUND, serving
from udfs import writer_schemas
from udfs.writer_schemas import WriterSchemas

SCHEMA = {"type": "string"}


@dataclass
class Clock:
    """A clock that only sleep moves, in seconds."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which an unknown id is waited for."""
    found = Clock()
    monkeypatch.setattr(writer_schemas, "time", found)
    return found


def test_a_failing_registry_is_asked_again() -> None:
    with serving((503, {}), (500, {}), FOUND) as server:
        assert WriterSchemas(server.url)(7) == SCHEMA
    assert len(server.requests) == 3


def test_a_failing_registry_is_waited_for_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = itertools.count(step=3600.0)
    monkeypatch.setattr(tenacity, "time", SimpleNamespace(monotonic=lambda: next(hours)))
    with serving((503, {}), (503, {}), (429, {}), FOUND) as server:
        assert WriterSchemas(server.url)(7) == SCHEMA
    assert next(hours) > 3 * 3600


def test_a_registry_that_lets_nobody_in_makes_no_event_a_dead_letter() -> None:
    with serving((401, {"message": "no"})) as server, pytest.raises(RegistryError, match="check"):
        WriterSchemas(server.url)(7)
    assert len(server.requests) == 1


def test_an_unknown_id_is_waited_for_once_and_is_then_none(clock: Clock) -> None:
    with serving(ABSENT) as server:
        schemas = WriterSchemas(server.url)
        assert schemas(7) is None
        assert clock.now == 5.0
        asked = len(server.requests)
        # Further ones are asked for, but not waited for.
        assert schemas(8) is None
        assert (clock.now, len(server.requests)) == (5.0, asked + 1)


def test_a_schema_that_is_registered_while_it_is_waited_for_is_found(clock: Clock) -> None:
    with serving(ABSENT, ABSENT, FOUND) as server:
        assert WriterSchemas(server.url)(7) == SCHEMA
    assert clock.now == 1.0
