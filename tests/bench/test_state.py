"""The churning visitors of `bench.state`: many come and go, few are there at a time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from bench.state import Churn

HOUR_MS = 3_600_000


def test_visitors_come_for_about_an_hour_and_never_again() -> None:
    churn = Churn(events=200_000, hours=20)
    table = pa.Table.from_batches(churn.batches())
    assert table.equals(pa.Table.from_batches(churn.batches()))
    times = table["event_time"].cast(pa.int64())
    visits = pa.table({"user": table["user_id"], "time": times})
    found = visits.group_by("user").aggregate([("time", "min"), ("time", "max")])
    stays = pc.subtract(found["time_max"], found["time_min"]).to_pylist()
    assert max(stays) < 1.1 * HOUR_MS
    assert abs(len(stays) - churn.visitors) < 0.1 * churn.visitors
    assert 0.98 < (max(times.to_pylist()) - min(times.to_pylist())) / (20 * HOUR_MS) <= 1.01
