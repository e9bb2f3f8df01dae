"""How long a rebuild waits for partitions that others have left behind. No stack."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from replay.silence import Newest, silence

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
FIVE, TEN = timedelta(minutes=5), timedelta(minutes=10)
LIVELY, STALE = NOW - timedelta(seconds=30), NOW - timedelta(minutes=20)


@pytest.mark.parametrize(
    ("partitions", "waits"),
    [
        ([Newest(LIVELY, FIVE), Newest(LIVELY, TEN)], timedelta()),
        ([Newest(LIVELY, FIVE), Newest(STALE, TEN)], TEN),
        ([Newest(LIVELY, TEN), Newest(STALE, FIVE)], FIVE),
        ([Newest(LIVELY, FIVE), Newest(None, TEN)], TEN),
        ([Newest(STALE, FIVE), Newest(None, TEN)], TEN),
        ([Newest(STALE, FIVE), Newest(STALE, TEN)], timedelta()),
        ([Newest(None, FIVE), Newest(None, TEN)], timedelta()),
        ([], timedelta()),
    ],
)
def test_only_what_others_left_behind_is_waited_for(
    partitions: list[Newest], waits: timedelta
) -> None:
    assert silence(partitions, NOW) == waits
