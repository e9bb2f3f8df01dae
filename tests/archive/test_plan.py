"""What a replay from the archive is planned as, and where its job goes on. No stack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.catalogue import job_named
from jobs.plan import plan
from jobs.start import Start, start_from
from replay.archive_files import Archive, ArchivedRecord
from replay.differences import Expectation
from replay.handover import reading_copy
from replay.plan import Refused, plan_replay
from replay.records import plan_from_json
from replay.restored import covered
from tests.replay.test_plan import FACTS

ANY = Expectation()
GAP = replace(
    FACTS, begin={"page_views": {0: 0, 1: 50}}, archive="s3://events", archived={0: 0, 1: 50}
)


def write(archive: Archive, *offsets: int, next_offset: int) -> None:
    records = [ArchivedRecord(offset, 1, None, b"v") for offset in offsets]
    archive.write(1, offsets[0], records, next_offset)


def test_events_from_the_archive_count_from_offset_zero() -> None:
    found = plan_replay(GAP, ANY, from_earliest=False)
    assert (found.begin, found.events, found.archive) == (FACTS.begin, 500, "s3://events")
    assert plan_from_json(json.loads(json.dumps(found.as_json()))) == found


def test_a_whole_topic_needs_no_archive() -> None:
    facts = replace(FACTS, archive="s3://events", archived={0: 0, 1: 0})
    assert plan_replay(facts, ANY, from_earliest=False).archive == ""


def test_an_archive_that_does_not_reach_the_topic_is_refused() -> None:
    with pytest.raises(Refused, match="partition 1 begins at offset 50, and the archive at"):
        plan_replay(replace(GAP, archived={0: 0, 1: 49}), ANY, from_earliest=False)


def test_a_plan_of_before_there_was_an_archive_is_read() -> None:
    found = plan_replay(FACTS, ANY, from_earliest=False)
    document = found.as_json()
    del document["archive"]
    assert plan_from_json(json.loads(json.dumps(document))) == found


def test_an_archive_covers_what_it_has_from_zero_without_a_gap(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), "events")
    assert covered(archive, {0: 0, 1: 9}) == {0: 0, 1: 0}
    write(archive, 0, 1, next_offset=2)
    # Offsets 3, 5 and 6 are markers of transactions: within a file's run nothing is missing.
    write(archive, 2, next_offset=4)
    write(archive, 4, next_offset=7)
    assert covered(archive, {0: 0, 1: 9}) == {0: 0, 1: 7}
    write(archive, 8, next_offset=9)
    assert covered(archive, {0: 0, 1: 9}) == {0: 0, 1: 7}


def test_an_archive_that_begins_later_covers_nothing(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), "events")
    write(archive, 3, next_offset=4)
    assert covered(archive, {1: 4}) == {1: 0}


def test_a_start_is_the_same_after_the_command_line() -> None:
    start = Start({0: 5, 1: 0}, {0: 1_000})
    assert start.as_options() == {"start": "0:5,1:0", "newest": "0:1000"}
    assert start_from(offsets="0:5,1:0", newest="0:1000") == start
    assert start.known == ((0, (5, 1_000)),)
    assert start_from("", "") == Start()


def test_the_job_that_reads_the_copy_has_a_name_of_its_own_and_the_same_outputs() -> None:
    second = plan(job_named("page_views"), 3)
    first = reading_copy(second)
    assert (first.name, second.name) == ("page_views.v3.archive", "page_views.v3")
    assert (first.events_topic, second.events_topic) == (
        "restored.page_views.v3",
        "events.page_views",
    )
    assert first.topics == second.topics
