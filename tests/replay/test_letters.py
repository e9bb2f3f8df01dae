"""Dead letters mended and judged anew, without Kafka or ClickHouse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.console import CommandError
from replay.dlq_commands import _sort, reinject_command
from replay.doubled import taken_now
from replay.letters import BadRepair, Letter, Workbench, parse_changes, read_repairs, write_repairs
from schemas.registry import Registry, UnknownSchemaId
from schemas.streams import PAGE_VIEWS
from tests import datasets
from tests.datasets import frame

SCHEMA_ID = 3
EVENT = {
    "event_id": "e1",
    "event_time": 1_700_000_000_000,
    "user_id": "u1",
    "page_id": "/a",
    "duration_ms": 5,
    "status": 99,
}


class Schemas:
    """A registry that knows one schema."""

    def schema_by_id(self, schema_id: int) -> dict[str, Any]:
        if schema_id == SCHEMA_ID:
            return datasets.V1
        raise UnknownSchemaId(f"no schema {schema_id}")


@pytest.fixture
def bench() -> Workbench:
    return Workbench(cast(Registry, Schemas()), PAGE_VIEWS, SCHEMA_ID)


def letter(value: bytes | None, schema_id: int | None = SCHEMA_ID) -> Letter:
    return Letter("out_of_range", "", 2, 7, EVENT["event_time"], schema_id, b"u1", value)


def test_a_changed_field_makes_a_good_event(bench: Workbench) -> None:
    bad = letter(frame(EVENT, SCHEMA_ID))
    assert bench.fault(bad.value, bad.timestamp_ms).startswith("out_of_range: status")

    mended = bench.mended(bad, {"status": 200})

    assert (mended.fault, mended.key, mended.timestamp_ms) == ("", b"u1", EVENT["event_time"])
    assert bench.fault(mended.value, mended.timestamp_ms) == ""
    assert mended.event is not None
    assert {**EVENT, "status": 200}.items() <= mended.event.items()


def test_what_is_still_wrong_says_why(bench: Workbench) -> None:
    bad = letter(frame(EVENT, SCHEMA_ID))
    assert bench.mended(bad, {"status": 600}).fault.startswith("out_of_range: status")
    assert "status" in bench.mended(bad, {"status": "ok"}).fault
    assert bench.mended(letter(b"\0\0"), {"status": 200}).event is None
    assert bench.mended(letter(frame(EVENT, 9), 9), {"status": 200}).event is None


def test_a_whole_event_takes_the_place_of_bytes_that_tell_nothing(bench: Workbench) -> None:
    mended = bench.mended(letter(b"\0\0"), {}, {**EVENT, "status": 200})
    assert mended.fault == ""


def test_loosened_rules_take_a_letter_as_it_was(bench: Workbench) -> None:
    letters = [letter(frame(EVENT, SCHEMA_ID)), letter(b"\0\0")]
    assert taken_now(bench, letters) == ()
    assert taken_now(loosened(), letters) == ((2, 7),)


def test_a_letter_that_the_rules_of_now_take_is_not_sent_again(bench: Workbench) -> None:
    bad = letter(frame(EVENT, SCHEMA_ID))

    def sorted_by(one: Workbench, **changes: int) -> list[str]:
        mended = [one.mended(bad, changes)]
        found = _sort(one, mended, frozenset())
        return [name for name, members in found.items() if members == mended]

    assert sorted_by(bench, status=200) == ["ready"]
    assert sorted_by(bench) == ["wrong"]
    assert sorted_by(loosened(), status=200) == sorted_by(loosened()) == ["good"]


def loosened() -> Workbench:
    """Return a workbench without rules."""
    return Workbench(cast(Registry, Schemas()), replace(PAGE_VIEWS, rules=()), SCHEMA_ID)


def test_changes_are_json_where_they_can_be() -> None:
    assert parse_changes(["status=200", "page_id=/a", "country=null"]) == {
        "status": 200,
        "page_id": "/a",
        "country": None,
    }
    with pytest.raises(BadRepair, match="no field=value"):
        parse_changes(["status"])


def test_repairs_come_back_from_their_file(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "repairs.jsonl"
    mended = bench.mended(letter(frame(EVENT, SCHEMA_ID)), {"status": 200})
    assert write_repairs(path, [mended]) == 1
    assert list(read_repairs(path)) == [((2, 7), mended.event)]
    path.write_text('{"partition": 1}\n')
    with pytest.raises(BadRepair, match="line 1"):
        list(read_repairs(path))


def test_what_ends_a_line_elsewhere_is_text_in_a_repair(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    whole = {**EVENT, "status": 200, "page_id": "/a\u2028b\u2029c\u0085d\x0be"}
    mended = bench.mended(letter(b""), {}, whole=whole)
    assert write_repairs(path, [mended, mended]) == 2
    pages = [event["page_id"] for _, event in read_repairs(path)]
    assert pages == [whole["page_id"]] * 2


def test_letters_of_a_second_reading_are_sent_again_in_the_first_only() -> None:
    with pytest.raises(CommandError, match="mend them there, for both: --stream page_views"):
        reinject_command(stream="page_requests")
