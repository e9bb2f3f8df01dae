"""When an event is later than allowed; time is passed in, verdicts are exact."""

from datetime import timedelta

import numpy as np

from schemas.streams import Stream
from udfs.lateness import UNKNOWN, PartitionClock, late

STREAM = Stream(
    "clicks",
    "user",
    disorder=timedelta(seconds=10),
    allowed_lateness=timedelta(minutes=5),
    pane=timedelta(minutes=1),
)
SECOND = 1000


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_each_partition_has_its_own_newest_time() -> None:
    clock = PartitionClock(lambda partition, offset: None)

    newest = clock.newest(ints(0, 1, 0, 1, 0), ints(0, 0, 1, 1, 2), ints(50, 7, 40, 9, 60))

    assert newest.tolist() == [50, 7, 50, 9, 60]


def test_the_newest_time_is_carried_from_batch_to_batch_over_gaps_in_the_offsets() -> None:
    clock = PartitionClock(lambda partition, offset: None)
    clock.newest(ints(0), ints(0), ints(100))

    assert clock.newest(ints(0), ints(7), ints(90)).tolist() == [100]


def test_a_start_in_mid_topic_asks_what_came_before() -> None:
    asked = []

    def before(partition: int, offset: int) -> int:
        asked.append((partition, offset))
        return 500

    clock = PartitionClock(before)

    assert clock.newest(ints(3, 3), ints(41, 42), ints(90, 600)).tolist() == [500, 600]
    assert clock.newest(ints(3), ints(43), ints(90)).tolist() == [600]
    assert asked == [(3, 41)]


def test_a_rewind_asks_again() -> None:
    clock = PartitionClock(lambda partition, offset: None if offset == 0 else 70)
    clock.newest(ints(0, 0), ints(0, 1), ints(100, 200))

    assert clock.newest(ints(0), ints(1), ints(80)).tolist() == [80]


def test_an_event_is_late_from_the_moment_its_pane_expires() -> None:
    # The pane [0, 60 s) expires when the watermark reaches 60 s - 1 ms + 5 min.
    expiry = 60 * SECOND - 1 + 300 * SECOND
    newest = ints(expiry + 10 * SECOND - 1, expiry + 10 * SECOND)
    times = ints(5 * SECOND, 5 * SECOND)

    assert late(STREAM, times, newest, ints(UNKNOWN, UNKNOWN)).tolist() == [False, True]


def test_the_later_of_both_watermarks_decides() -> None:
    times, newest = ints(5 * SECOND, 5 * SECOND), ints(5 * SECOND, 5 * SECOND)

    assert late(STREAM, times, newest, ints(359_998, 359_999)).tolist() == [False, True]
