from udfs.pace import LONGEST_PAUSE_MS, Pace

HOUR = 3_600_000
NEVER = -(2**63)


def test_time_that_runs_with_the_clock_catches_up_with_nothing() -> None:
    pace = Pace()
    for now in range(0, 20_000, 100):
        pace.note(now, HOUR + now)
        assert not pace.catches_up(now, HOUR + now)


def test_time_that_runs_much_faster_does_until_it_has_stood_still_for_two_seconds() -> None:
    pace = Pace()
    for now in range(0, 10_000, 100):
        pace.note(now, 100 * now)
        assert pace.catches_up(now, 100 * now) == (now > 50)
    end = 100 * 9_900
    told = {}
    for now in range(10_000, 15_000, 100):
        pace.note(now, end)
        told[now] = pace.catches_up(now, end)
    assert told[11_500]
    assert not any(told[now] for now in range(12_200, 15_000, 100))


def test_events_that_are_rare_move_time_as_far_as_the_clock_has_gone() -> None:
    pace = Pace()
    for now in range(0, 600_000, 500):
        watermark = HOUR + now - now % 60_000
        pace.note(now, watermark)
        assert not pace.catches_up(now, watermark)


def test_without_a_watermark_nothing_is_told() -> None:
    pace = Pace()
    pace.note(0, NEVER)
    assert not pace.catches_up(0, NEVER)
    assert not pace.catches_up(10, HOUR)
    pace.note(100, HOUR)
    assert not pace.catches_up(100, HOUR)


def test_a_clock_that_is_set_back_forgets_what_was_seen() -> None:
    pace = Pace()
    pace.note(HOUR, 0)
    pace.note(1_000, HOUR)
    assert not pace.catches_up(1_000, HOUR)
    assert pace.catches_up(2_000, 2 * HOUR)


def test_a_task_merges_all_its_buckets_in_a_tenth_of_its_time() -> None:
    pace = Pace()
    assert pace.pause == 100
    pace.took(1, 90)
    pace.took(2, 60)
    assert pace.pause == 1_500
    pace.took(1, 20)
    assert pace.pause == 800
    pace.took(2, 10_000)
    assert pace.pause == LONGEST_PAUSE_MS
