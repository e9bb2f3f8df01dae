"""A stream gets a field and a view a column that uses it, in one change, seen once promoted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fastavro
import pytest

from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    produce,
    register,
    rows,
    start_loader,
)
from tests.oracle import MINUTE, PER_MINUTE, Record, judge
from tests.replay.running import SUBMIT, await_rows, done, project_with, readers, run

pytestmark = pytest.mark.long

FIELD = (
    '    {"name": "method", "type": "string", "default": "GET", '
    '"doc": "HTTP method of the request."},\n'
)
ERRORS = (
    '"errors": Count("status", ">=", 500, doc="Requests answered with a status of 500 or more.")'
)
COLUMN = '"reads": Count("method", "==", "GET", doc="Requests that only read.")'
BEFORE: dict[str, Any] = {
    **datasets.V1,
    "fields": [each for each in datasets.V1["fields"] if each["name"] != "method"],
}


def test_a_field_and_a_column_come_in_one_change_while_the_old_version_is_served(
    empty: Environment, tmp_path: Path
) -> None:
    env = empty
    old = project_with(tmp_path / "old", "schemas/page_views.avsc", {FIELD: ""})
    new = project_with(tmp_path / "new", "jobs/page_views.py", {ERRORS: f"{ERRORS},\n    {COLUMN}"})
    events = datasets.dense_traffic(0, events=3_000)
    create_topic(env)
    sent = produce(env, without_method(events[:1_500], register(env, BEFORE)))
    start_loader(env)
    submitted = run(env, *SUBMIT, project=old)
    assert submitted.returncode == 0, submitted.stderr
    await_rows(env, sent)

    sent += produce(env, with_method(events[1_500:], register(env, datasets.V1)))
    await_rows(env, sent)
    with readers(env, f"SELECT sum(views) FROM {PER_MINUTE}", threads=1) as reading:
        built = run(env, "replay", "build", "--yes", project=new)
        assert built.returncode == 0, built.stdout + built.stderr
        with pytest.raises(Exception, match="reads"):
            reads(env)
        await_rows(env, sent)
        ran = run(env, "replay", "run", "--yes", project=new)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (dict(reading.failures), set(reading.counts())) == ({}, {(len(events),)})
    await_rows(env, sent)
    assert reads(env) == expected_reads(env, sent)
    assert {event_method(env, record) for record in sent} == {None, "GET", "POST"}

    done(env, "rollback", "--yes")
    await_rows(env, sent)


def without_method(records: Iterable[Record], schema_id: int) -> list[Record]:
    """Return the records as a producer of before the change writes them."""
    return [_written(record, schema_id, BEFORE) for record in records]


def with_method(records: Iterable[Record], schema_id: int) -> list[Record]:
    """Return the records as a producer of after the change writes them, every third a POST."""
    return [
        _written(record, schema_id, datasets.V1, method="POST" if number % 3 == 0 else "GET")
        for number, record in enumerate(records)
    ]


def _written(record: Record, schema_id: int, schema: dict[str, Any], **fields: str) -> Record:
    assert record.value
    event: Any = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), datasets.V1, None)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {**event, **fields})
    value = b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()
    return Record(record.partition, -1, record.timestamp_ms, record.key, value)


def event_method(env: Environment, record: Record) -> str | None:
    """Return the method that was written, or None where the writer knew no such field."""
    assert record.value
    schema = env.registered[int.from_bytes(record.value[1:5], "big")]
    event: Any = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), schema, None)
    method: str | None = event.get("method")
    return method


def reads(env: Environment) -> list[tuple[Any, ...]]:
    """Return window, page and the new column of each row that people see."""
    return sorted(
        rows(
            env,
            "SELECT toUnixTimestamp64Milli(window_start), page_id, reads "
            f"FROM {env.settings.database}.{PER_MINUTE}",
        )
    )


def expected_reads(env: Environment, sent: Iterable[Record]) -> list[tuple[Any, ...]]:
    """Return the same of `sent`: an event without the field counts by the field's default."""
    counted: Counter[tuple[int, str]] = Counter()
    taken = judge(sent, env.registered).aggregated
    for record in sent:
        if record.place in taken:
            key = record.timestamp_ms // MINUTE * MINUTE, taken[record.place].page_id
            counted[key] += (event_method(env, record) or "GET") == "GET"
    return sorted((*key, count) for key, count in counted.items())
