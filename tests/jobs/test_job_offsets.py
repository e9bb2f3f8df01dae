"""How far a job has read, out of what its consumer groups have committed. No stack."""

from __future__ import annotations

from typing import cast

from jobs.catalogue import job_named
from jobs.plan import plan
from jobs.status import job_offsets
from sinks.lag import LagReader


class Committed:
    """What consumer groups have committed, in place of Kafka."""

    def __init__(self, groups: dict[str, dict[tuple[str, int], int]]) -> None:
        self._groups = groups

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        return self._groups.get(group, {})


def offsets(
    job: str, version: int, groups: dict[str, dict[tuple[str, int], int]]
) -> dict[str, dict[int, int]]:
    reader = cast(LagReader, Committed(groups))
    return job_offsets(reader, plan(job_named(job), version))


def test_every_stream_is_told_even_one_that_nothing_is_read_of() -> None:
    own = {("events.orders", 0): 7, ("events.orders", 2): 9, ("events.payments", 0): 3}
    assert offsets("orders", 1, {"kappa-orders": own}) == {
        "orders": {0: 7, 2: 9},
        "payments": {0: 3},
        "customer_segments": {},
    }
    assert offsets("orders", 2, {"kappa-orders": own})["orders"] == {}


def test_what_is_read_twice_counts_as_read_where_both_have() -> None:
    panes = {("events.transactions", part): 10 for part in (0, 1, 2)}
    arrivals = {("events.transactions", 0): 8, ("events.transactions", 1): 12}
    groups = {"kappa-transactions.v2": panes, "kappa-transactions.v2-arrivals": arrivals}
    assert offsets("transactions", 2, groups) == {"transactions": {0: 8, 1: 10, 2: 0}}
