"""Late and dead events whose own fields say which keys they can explain."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from deploy.stack import Stack
from schemas.framing import frame
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS
from tests.verify.tables import NOON, Versions, row, told


@pytest.fixture
def on_stack(stack: Stack) -> Iterator[Versions]:
    made = Versions(stack.settings.model_copy(update={"namespace": f"v{uuid.uuid4().hex[:8]}"}))
    yield made
    made.close()


def event(settings: Any, page: str) -> bytes:
    """Return a page view as it stands in the topic, its schema in the registry."""
    with Registry(settings.registry) as registry:
        schema_id = registry.register(f"{settings.topic_prefix}events-value", PAGE_VIEWS.schema)
    record = {
        "event_id": "e1",
        "user_id": "u1",
        "page_id": page,
        "event_time": NOON,
    }
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(PAGE_VIEWS.schema), record)
    return frame(schema_id, body.getvalue())


def test_a_late_event_explains_its_own_page_only(on_stack: Versions) -> None:
    on_stack.both(
        [row("/a", 0, 3), row("/b", 0, 2)],
        [row("/a", 0, 4), row("/b", 0, 3)],
    )
    on_stack.skip(1, 41, NOON, value=event(on_stack.settings, "/a"))
    view = on_stack.compare()
    assert [(page, verdict) for page, _, verdict, _ in told(view)] == [
        ("/a", "explained"),
        ("/b", "unexplained"),
    ]


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01", b"\x00\x00\x00\x00\x09", frame(2**31, b"x"), b"\x00" * 5 + b"\xff" * 40],
    ids=["empty", "no-frame", "short", "unknown-schema", "no-avro"],
)
def test_an_event_that_cannot_be_read_fits_every_key_of_its_window(
    on_stack: Versions, value: bytes
) -> None:
    on_stack.both([row("/a", 0, 3), row("/b", 1, 3)], [row("/a", 0, 4), row("/b", 1, 4)])
    on_stack.skip(1, 7, NOON, reason="undecodable", value=value)
    assert [verdict for _, _, verdict, _ in told(on_stack.compare())] == [
        "explained",
        "unexplained",
    ]


def test_a_schema_id_with_foreign_bytes_behind_it_is_no_failure(on_stack: Versions) -> None:
    good = event(on_stack.settings, "/a")
    on_stack.both([row("/a", 0, 3)], [row("/a", 0, 4)])
    for offset, body in enumerate((b"\xff" * 30, b"\x02", b"\xfe" * 9 + b"\x01")):
        on_stack.skip(1, offset, NOON, reason="undecodable", value=good[:5] + body)
    assert [verdict for _, _, verdict, _ in told(on_stack.compare())] == ["explained"]
