"""The data sets have what their names promise, by the oracle and by construction."""

from __future__ import annotations

from collections import Counter

import pytest

from tests import datasets
from tests.oracle import DISORDER, PER_MINUTE, SECOND, SITE, Record, judge

IDS = {1: datasets.V1, 2: datasets.NULLABLE_USER, 3: datasets.V0, 4: datasets.V2}


def trailing(records: list[Record]) -> int:
    """Return by how many ms at most a record trails the newest before it in its partition."""
    newest: dict[int, int] = {}
    most = 0
    for record in records:
        newest[record.partition] = max(newest.get(record.partition, 0), record.timestamp_ms)
        most = max(most, newest[record.partition] - record.timestamp_ms)
    return most


def test_the_sample_has_ten_thousand_events_and_none_is_late_or_dead() -> None:
    verdict = judge(datasets.sample_log(1), IDS)
    assert (len(verdict.aggregated), verdict.late, verdict.dead) == (10_000, {}, {})
    assert sum(row.views for row in verdict.views[SITE].values()) == 10_000
    assert len(verdict.views[SITE]) == 84


def test_the_shuffled_sample_stays_within_the_disorder_and_has_the_same_rows() -> None:
    shuffled = datasets.shuffled_sample_log(1)
    assert 5 * SECOND < trailing(shuffled) <= DISORDER
    assert judge(shuffled, IDS).views == judge(datasets.sample_log(1), IDS).views


def test_late_events_fall_on_both_sides_of_the_lateness() -> None:
    records = datasets.late_events(1)
    verdict = judge(records, IDS)
    assert trailing(records) > DISORDER
    assert len(verdict.late) > 50
    assert len([r for r in records if r.place in verdict.aggregated]) > 3_900
    edges = verdict.views[PER_MINUTE]
    hour = datasets.EVENING + 2 * datasets.HOUR
    assert edges[hour, "/edge"].views == 2 * datasets.PARTITIONS  # 5 s and 30 s, not 31 s
    assert edges[hour + 60_000, "/edge"].views == datasets.PARTITIONS


def test_a_returning_partition_has_no_late_events_by_its_own_watermark() -> None:
    first, second = datasets.returning_partition(1)
    verdict = judge([*first, *second], IDS)
    assert (verdict.late, len(verdict.aggregated)) == ({}, len(first) + len(second))


def test_broken_records_are_one_percent_and_each_has_the_reason_it_was_made_for() -> None:
    records, reasons = datasets.broken_traffic(1, nullable_id=2, unknown_id=999)
    verdict = judge(records, IDS)
    assert verdict.dead == reasons
    assert len(reasons) / len(records) == pytest.approx(0.01, rel=0.1)
    assert set(Counter(reasons.values()).values()) <= {2, 4, 6, 8, 10, 12}
    assert set(reasons.values()) == {
        *("empty", "bad_magic", "truncated", "oversize", "unknown_schema_id", "undecodable"),
        *("trailing_bytes", "missing", "out_of_range", "bad_length", "wrong_time", "bad_text"),
    }


def test_dense_traffic_is_the_same_each_time_and_has_what_kill_tests_need() -> None:
    records = datasets.dense_traffic(1, events=10_000, late_share=0.02, broken_share=0.01)
    assert records == datasets.dense_traffic(1, events=10_000, late_share=0.02, broken_share=0.01)
    verdict = judge(records, IDS)
    assert 50 < len(verdict.dead) < 200
    assert 20 < len(verdict.late) < 200
    assert {record.partition for record in records} == {0, 1, 2, 3}
    assert {row.page_id for row in verdict.views[PER_MINUTE].values()} == set(datasets.PAGES)


def test_all_schema_versions_are_good_events() -> None:
    records = datasets.mixed_versions((3, 1, 4), events=300, start=datasets.EVENING)
    verdict = judge(records, IDS)
    assert (len(verdict.aggregated), verdict.dead) == (300, {})
