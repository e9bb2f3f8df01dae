"""Series of runs: their points, the rows that must be, how rows differ, what is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import fastavro
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bench import price, scaling
from bench.latency import Latency, Sent, latencies
from bench.machine import Machine
from bench.nexmark.queries import Q11
from bench.oracle import window_rows
from bench.rows import decoded, difference
from bench.series import Figure, Filling, Topic, keep
from bench.showing import kept
from bench.throughput import Measured
from bench.trusting import TrustingDecoder
from bench.variants import SEVERAL, STREAM, VARIANTS
from bench.width import NARROW, WIDE, widened
from bench.workload import Workload, batches
from deploy.settings import Settings
from jobs.views import Sliding, Tumbling, WindowView
from schemas.batches import BatchEncoder
from schemas.framing import header
from schemas.streams import PAGE_VIEWS
from udfs.measures import Count, CountDistinct, Max, Mean, Min, Sum

START = 1_767_600_000_000
SMALL = Workload(events=20_000)
MEASURED = Measured("v", 1, 2, 3, 4.0, 5.0, 6.0, 8.0, 9, True)
THEN = Machine("a processor", 2, 16.0, "1a", "then")


def events(*rows: tuple[int, str | None, str, int | None, int]) -> Iterator[pa.RecordBatch]:
    names = ["event_time", "country", "user_id", "duration_ms", "status"]
    columns = [list(column) for column in zip(*rows, strict=True)]
    yield pa.RecordBatch.from_pydict(dict(zip(names, columns, strict=True)))


def view(window: Tumbling | Sliding, *dimensions: str) -> WindowView:
    return WindowView(
        name="v",
        stream=STREAM,
        dimensions=dimensions,
        window=window,
        measures={
            "views": Count(),
            "errors": Count("status", ">=", 500),
            "users": CountDistinct("user_id"),
            "total": Sum("duration_ms"),
            "mean": Mean("duration_ms"),
            "least": Min("duration_ms"),
            "most": Max("duration_ms"),
        },
        description="",
    )


def records(table: pd.DataFrame) -> list[tuple[object, ...]]:
    found = table.astype(object).where(table.notna(), None)
    return sorted(found.itertuples(index=False, name=None))


def test_rows_by_dimension_and_window_with_nulls_as_empty_texts() -> None:
    given = events(
        (START, "DE", "u", 10, 200),
        (START + 9_999, "DE", "w", None, 500),
        (START + 10_000, "DE", "u", 4, 200),
        (START, None, "u", 1, 200),
        (START, None, "u", 2, 503),
    )
    assert records(window_rows(view(Tumbling(timedelta(seconds=10)), "country"), given)) == [
        (START, "", 2, 1, 1, 3, 1.5, 1, 2),
        (START, "DE", 2, 1, 2, 10, 10.0, 10, 10),
        (START + 10_000, "DE", 1, 0, 1, 4, 4.0, 4, 4),
    ]


def test_an_event_counts_in_each_window_that_it_is_in() -> None:
    window = Sliding(timedelta(seconds=20), timedelta(seconds=10))
    given = events((START, "DE", "u", None, 200), (START + 10_000, "DE", "u", 8, 200))
    assert records(window_rows(view(window), given)) == [
        (START - 10_000, 1, 0, 1, None, None, None, None),
        (START, 2, 0, 1, 8, 8.0, 8, 8),
        (START + 10_000, 1, 0, 1, 8, 8.0, 8, 8),
    ]


def test_rows_differ_by_what_is_missing_and_what_is_too_many() -> None:
    one = pd.DataFrame({"k": ["a", "b"], "n": [1, None]})
    assert difference(one[::-1], one.astype({"n": "float64"})) == ""
    told = difference(pd.DataFrame({"n": [2, 2], "k": ["a", "b"]}), one[:1])
    assert told.startswith("1 rows missing, 2 too many: no k=a n=1.0 and not expected: k=a")
    twice = difference(pd.DataFrame({"k": ["a", "a"], "n": [1, 1]}), one[:1])
    assert twice.startswith("0 rows missing, 1 too many")


def test_new_figures_take_the_place_of_those_of_the_same_point(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    first = [Figure("s", "a", THEN, MEASURED), Figure("s", "b", THEN, MEASURED, keys=7)]
    keep(first, path)
    newer = Figure("s", "a", replace(THEN, commit="2b", at="now"), replace(MEASURED, steady=20))
    assert keep([newer], path) == [newer, first[1]]
    there = json.loads(path.read_text())
    assert there["machine"]["commit"] == "2b"
    assert [one["machine"]["commit"] for one in there["figures"]] == ["2b", "1a"]


def test_what_ends_a_series_leaves_the_figures_before_it(tmp_path: Path) -> None:
    def figures() -> Iterator[Figure]:
        yield Figure("s", "a", THEN, MEASURED)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        kept(figures(), tmp_path, "figures")
    there = json.loads((tmp_path / "figures.json").read_text())["figures"]
    assert [one["label"] for one in there] == ["a"]


def test_a_figure_that_does_not_say_what_it_was_measured_on_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"figures": [{"series": "s", "label": "a", "at": "then"}]}))
    figure = Figure("s", "b", THEN, MEASURED)
    assert keep([figure], path) == [figure]


def test_figures_stand_side_by_side_where_machine_and_commit_are_the_same() -> None:
    assert replace(THEN, at="now").is_like(THEN)
    assert not replace(THEN, commit="2b").is_like(THEN)
    assert not replace(THEN, cores=4).is_like(THEN)


def test_the_keys_of_a_point_are_those_of_its_fullest_window() -> None:
    topic = Topic(Settings(), Filling(SMALL))
    one = view(Tumbling(timedelta(seconds=10)), "page_id")
    sizes = topic.rows(one).groupby("window_start").size()
    assert topic.keys(("v",)) == sizes.max() > sizes.min()


def test_each_guard_is_left_out_for_each_question() -> None:
    points = price.points(("W1", "W2"), SMALL)
    assert len(points) == 10
    guards = {p.label: (p.job.stream.allowed_lateness > timedelta(0), bool(p.job.stream.rules),
                        p.options.get("delivery")) for p in points}  # fmt: skip
    assert guards == {
        "all of them": (True, True, None),
        "at least once": (True, True, "at-least-once"),
        "no lateness": (False, True, None),
        "no dead letters": (True, False, None),
        "none of them": (False, False, "at-least-once"),
    }


def test_points_over_equal_topics_stand_together() -> None:
    shown = scaling.points(tuple(scaling.SERIES), SMALL)
    run = scaling.by_topic(shown)
    assert sorted(map(id, run)) == sorted(map(id, shown))
    fillings = [point.filling for point in run]
    changes = sum(a != b for a, b in pairwise(fillings))
    assert changes + 1 == len(set(fillings))
    assert len({(point.series, point.label) for point in run}) == len(run)


def test_more_keys_are_more_keys_in_a_window() -> None:
    shown = scaling.points(("keys",), SMALL)
    counts = []
    for point in shown[:3]:
        topic = Topic(Settings(), point.filling)
        (one,) = point.job.views
        topic.rows(one)
        counts.append(topic.keys(point.views))
    assert counts[:2] == [10, 1_000]
    # 20,000 draws of 100,000.
    assert 17_500 < counts[2] < 18_600


def test_every_view_of_several_has_rows() -> None:
    assert len(SEVERAL) == 7
    for one in VARIANTS["several"].views:
        assert isinstance(one, WindowView)
        assert len(window_rows(one, batches(SMALL)))


@pytest.mark.parametrize("stream", [NARROW, PAGE_VIEWS, WIDE])
def test_what_trusts_decodes_what_was_written(stream: type) -> None:
    (batch,) = widened(batches(SMALL, SMALL.events))
    written = BatchEncoder(stream, stream.schema, header(7)).encode(batch)
    decoder = TrustingDecoder(stream, {7: stream.schema}.get, ("page_id", "duration_ms"))
    values = np.array(written.values, dtype=object)
    found = decoder.decode(values, np.array(written.timestamps))
    assert found.events.equals(pa.table(batch.select(["page_id", "duration_ms"]).to_pydict()))
    assert found.rows.tolist() == list(range(SMALL.events))


def test_half_of_all_events_are_hot_and_the_others_are_as_they_were() -> None:
    plain = pa.Table.from_batches(batches(SMALL)).to_pandas()
    hot = pa.Table.from_batches(batches(replace(SMALL, hot_page=0.5))).to_pandas()
    same = plain["page_id"] == hot["page_id"]
    assert abs((hot["page_id"] == "/articles/00001").mean() - 0.567) < 0.01
    assert plain[same].equals(hot[same])
    assert set(hot["page_id"][~same]) == {"/articles/00001"}
    user = pa.Table.from_batches(batches(replace(SMALL, hot_user=0.5))).to_pandas()
    assert abs((user["user_id"] == "user-0").mean() - 0.5) < 0.01
    assert plain.drop(columns="user_id").equals(user.drop(columns="user_id"))


def test_latencies_count_from_when_events_after_those_already_sent_were_due() -> None:
    sent = Sent(began=10.0, per_second=2.0, events=3, achieved=1.0)
    seen = [(10.5, 1), (12.0, 3), (12.5, 0), (13.0, 4)]
    # Due at 10, 10.5 and 11, whenever they were sent.
    assert latencies(sent, seen, 1).tolist() == [2.0, 1.5, 2.0]


def test_who_sends_less_than_was_asked_for_is_behind() -> None:
    kept = Latency.of(Sent(0, 50_000.0, 3, 49_600.0), 2.0, "view topic", np.array([1.0, 2, 3]))
    assert (kept.p50, kept.greatest, kept.events, kept.pace) == (2.0, 3.0, 3, "49,600")
    assert replace(kept, achieved=49_400.0).pace == "49,400 (behind)"


def test_rows_are_read_with_their_times_as_epoch_milliseconds() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"bidder": "x", "num": 3, "session_start": start, "session_end": start}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(Q11.avro_schema), row)
    schema = json.dumps(Q11.avro_schema)
    millis = 1_767_225_600_000
    assert decoded([body.getvalue()], schema).to_pylist() == [
        {"bidder": "x", "num": 3, "session_start": millis, "session_end": millis}
    ]
    assert len(decoded([], schema)) == 0
