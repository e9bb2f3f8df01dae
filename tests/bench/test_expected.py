"""What the comparison takes for right, against events told one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest

from bench.expected import expected_rows, payments, sessions, thefts, windows
from bench.peers.fraud import REMEMBERED, judge
from bench.questions import QUESTIONS
from bench.worlds import MINUTE, Cards, Shop, Traffic, Visits, World

pd = pytest.importorskip("pandas")


@dataclass
class Told:
    """A world of events that a test tells."""

    told: dict[str, list[dict[str, Any]]]
    streams: tuple[Any, ...] = ()
    end_ms: int = 0
    _unused: None = field(default=None)

    def batches(self, stream: str) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pylist(self.told[stream])


def test_a_pause_of_more_than_half_an_hour_ends_a_visit() -> None:
    views = [("a", 0), ("b", 5), ("a", 30 * MINUTE), ("a", 60 * MINUTE + 1), ("b", 4)]
    found = sessions(pd.DataFrame(views, columns=["user_id", "event_time"]))
    columns = ["user_id", "session_start", "pages", "duration_ms"]
    assert sorted(map(tuple, found[columns].values.tolist())) == [
        ("a", 0, 2, 30 * MINUTE),
        ("a", 60 * MINUTE + 1, 1, 0),
        ("b", 4, 2, 1),
    ]


def test_an_event_is_in_every_window_that_covers_it() -> None:
    views = [
        (70_000, "/a", "u", 10.0, 200),
        (70_000, "/a", "u", None, 500),
        (9_000, "/a", "v", 1.0, 200),
    ]
    events = pd.DataFrame(
        views, columns=["event_time", "page_id", "user_id", "duration_ms", "status"]
    )
    found = windows(events, 2 * MINUTE, MINUTE, ["page_id"], ["views", "unique_users", "errors"])
    assert sorted(map(tuple, found.values.tolist())) == [
        (-MINUTE, "/a", 1, 1, 0),
        (0, "/a", 3, 2, 1),
        (MINUTE, "/a", 2, 1, 1),
    ]


def test_a_payment_belongs_to_a_placed_order_up_to_a_minute_away() -> None:
    orders = [
        {"order_id": name, "event_time": MINUTE, "status": status}
        for name, status in (("o1", "placed"), ("o1", "shipped"), ("o2", "shipped"))
    ]
    paid = [
        {"payment_id": f"p{n}", "order_id": order, "event_time": at, "paid_cents": n}
        for n, (order, at) in enumerate(
            [("o1", 0), ("o1", 2 * MINUTE), ("o1", 2 * MINUTE + 1), ("o2", MINUTE), ("o3", MINUTE)]
        )
    ]
    found = payments(Told({"orders": orders, "payments": paid}))["order_payments"]
    assert found["payment_id"].tolist() == ["p0", "p1"]


def test_thefts_are_those_that_are_found_one_by_one() -> None:
    world = Cards(events=20_000)
    histories: dict[str, list[tuple[int, int, float, float]]] = {}
    rows = []
    for event in pa.Table.from_batches(world.batches("transactions")).to_pylist():
        history = histories.setdefault(event["user_id"], [])
        now = (event["event_time"], event["amount_cents"], event["latitude"], event["longitude"])
        if reasons := judge(history[-REMEMBERED:], now):
            rows.append((event["event_id"], reasons))
        history.append(now)
    found = thefts(world)["fraud_alerts"]
    assert len(rows) > 50
    assert {reasons for _, reasons in rows} == {"amount, distance", "amount, distance, frequency"}
    assert sorted(zip(found["transaction_id"], found["reasons"], strict=True)) == sorted(rows)


@pytest.mark.parametrize("world", [Traffic(5_000), Visits(5_000), Shop(5_000), Cards(5_000)])
def test_worlds_hold_as_many_events_as_asked_for_and_in_time(world: World) -> None:
    count = 0
    for stream in world.streams:
        table = pa.Table.from_batches(world.batches(stream.name))
        assert table.equals(pa.Table.from_batches(world.batches(stream.name)))
        count += len(table)
        times, newest = table["event_time"].cast(pa.int64()).to_pylist(), 0
        for at in times:
            assert newest - at < stream.disorder.total_seconds() * 1000
            newest = max(newest, at)
    assert count == 5_000


def test_the_closing_events_are_in_no_row() -> None:
    question = QUESTIONS["W7"]
    rows = expected_rows(question.answer, Visits(5_000), question.tables)
    assert set(rows) == {table.view for table in question.tables}
    assert all(rows[view] for view in rows if view != "page_milestones")
    for view in rows.values():
        assert not any(cell.startswith("closing") for key in view for cell in key)
    site = rows["site_traffic_per_minute"]
    assert sum(int(cells[0]) for cells in site.values()) == 5_000 - 64
