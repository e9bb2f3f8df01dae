"""Compare what the job made of the events with what the oracle says, event by event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from tests.harness import (
    Environment,
    Message,
    kappa,
    read_topic,
    rows,
    topic_rows,
    view_rows,
    wait_for,
)
from tests.oracle import MINUTE, SITE, Record, Rows, Verdict, judge

Letters = dict[tuple[int, int], Message]


def wait_for_rows(env: Environment, expected: Verdict, deadline_seconds: float = 60) -> None:
    """Wait until ClickHouse shows exactly the oracle's rows in every view."""
    for view, wanted in expected.views.items():
        wait_for(
            partial(view_difference, env, view, wanted),
            deadline_seconds,
            partial(_complaint, env, view, wanted),
            until=lambda text: text == "",
        )


def _complaint(env: Environment, view: str, wanted: Rows) -> str:
    in_topic = difference(wanted, topic_rows(env, view)) or "equal"
    return f"{view} equals the oracle (its topic: {in_topic:.300})"


def view_difference(env: Environment, view: str, wanted: Rows) -> str:
    """Return how the rows that people see in `view`, or in a table, differ from those wanted."""
    return difference(wanted, view_rows(env, view))


def assert_same(expected: Verdict, actual: Callable[[str], Rows]) -> None:
    """Assert that `actual(view)` has exactly the oracle's rows for every view."""
    for view, wanted in expected.views.items():
        text = difference(wanted, actual(view))
        assert text == "", f"{view}: {text}"


def difference(expected: Rows, actual: Rows) -> str:
    """Return what is missing, extra or other in `actual`; empty where nothing is."""
    missing = sorted(expected.keys() - actual.keys(), key=str)
    extra = sorted(actual.keys() - expected.keys(), key=str)
    other = sorted(
        (k for k in expected.keys() & actual.keys() if expected[k] != actual[k]), key=str
    )
    if not (missing or extra or other):
        return ""
    parts = [f"{len(expected)} rows expected, {len(actual)} found"]
    parts += [f"{len(missing)} missing, as {missing[:2]}"] if missing else []
    parts += [f"{len(extra)} extra, as {extra[:2]}"] if extra else []
    parts += [f"{len(other)} other"] if other else []
    parts += [f"expected {expected[key]}, found {actual[key]}" for key in other[:2]]
    return "; ".join(parts)


def dead_letters(env: Environment) -> Letters:
    """Return the committed dead letters by the coordinates in their headers."""
    return _by_origin(read_topic(env, env.stream.dead_letter_topic()))


def late_letters(env: Environment) -> Letters:
    """Return the committed late events by the coordinates in their headers."""
    return _by_origin(read_topic(env, env.stream.late_topic()))


def _by_origin(messages: Sequence[Message]) -> Letters:
    found: Letters = {}
    for message in messages:
        place = int(message.headers["partition"]), int(message.headers["offset"])
        assert place not in found, f"{place} was written twice"
        found[place] = message
    return found


def settle(env: Environment, deadline_seconds: float = 60) -> Verdict:
    """Wait until ClickHouse shows the oracle's rows and every event is accounted for.

    Returns the verdict on the events in the topic. Asserted on the way: every dead letter and
    late event has its coordinates, reason and raw bytes, the view topics hold the same rows,
    and read = aggregated + late + dead.
    """
    events = [message.record for message in read_topic(env, env.stream.topic)]
    verdict = judge(events, env.registered)
    wait_for_rows(env, verdict, deadline_seconds)
    places = {record.place: record for record in events}
    dead = _wait_for_letters(partial(dead_letters, env), len(verdict.dead), "dead letters")
    late = _wait_for_letters(partial(late_letters, env), len(verdict.late), "late events")
    assert_same(verdict, partial(topic_rows, env))
    assert_dead_letters(env, verdict, dead, places)
    assert_late_events(env, verdict, late, places)
    aggregated = sum(row.views for row in view_rows(env, SITE).values())
    assert aggregated + len(late) + len(dead) == len(events)
    return verdict


def assert_status(
    env: Environment, verdict: Verdict, markers: int = 0, deadline_seconds: float = 60
) -> None:
    """Assert that `kappa status` adds up to the topic's end offsets, once all is settled.

    `markers` is how many offsets between the events only end a transaction.
    """

    def settled(job: dict[str, Any]) -> bool:
        nothing_open = job["in_flight"] == markers and job["job_lag"] == job["loader_lag"] == 0
        return nothing_open and job["state"] == "RUNNING"

    status = wait_for(
        lambda: next(j for j in kappa(env, "status")["jobs"] if j["stream"] == env.stream.topic),
        deadline_seconds,
        "the job runs and nothing is under way",
        until=settled,
    )
    counts = {name: status[name] for name in ("aggregated", "late", "dead")}
    assert counts == {name: len(getattr(verdict, name)) for name in counts}
    assert status["events"] == status["read"] == sum(counts.values()) + markers
    partitions = {each["partition"]: each for each in status["partitions"]}
    marks = {number: each["watermark"] for number, each in partitions.items()}
    assert {number: _ms(mark) for number, mark in marks.items() if mark} == verdict.watermarks
    least = min(verdict.watermarks.values())
    [holder] = [number for number, each in partitions.items() if each["holds_watermark"]]
    assert verdict.watermarks[holder] == least


def assert_offsets(env: Environment, verdict: Verdict) -> None:
    """Assert that the job aggregated just the oracle's offsets, minute by minute and partition.

    How many there are, the least and the greatest: one that was lost, counted twice or taken for
    another's is seen, though the views may look right.
    """
    offsets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for (partition, offset), event in verdict.aggregated.items():
        offsets[partition, event.timestamp_ms // MINUTE * MINUTE].append(offset)
    expected = sorted((*key, len(each), min(each), max(each)) for key, each in offsets.items())
    found = rows(
        env,
        "SELECT source_partition, toUnixTimestamp(window_start) * 1000, events, first_offset, "
        f"last_offset FROM {env.settings.database}.page_views_accounting ORDER BY 1, 2",
    )
    assert [tuple(map(int, row)) for row in found] == expected


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _wait_for_letters(look: Callable[[], Letters], count: int, what: str) -> Letters:
    wait_for(lambda: len(look()), 30, f"there are {count} {what}", until=lambda n: n >= count)
    return look()


def assert_dead_letters(
    env: Environment,
    verdict: Verdict,
    dead: Letters,
    events: dict[tuple[int, int], Record],
) -> None:
    """Assert that `dead` has exactly the oracle's dead letters, each as it was sent."""
    reasons = {place: message.headers["reason"] for place, message in dead.items()}
    assert reasons == verdict.dead
    for place, message in dead.items():
        _assert_origin(env, message, events[place])
        assert message.headers["schema_id"] == _schema_id(events[place].value)
        assert message.headers["detail"]


def assert_late_events(
    env: Environment,
    verdict: Verdict,
    late: Letters,
    events: dict[tuple[int, int], Record],
) -> None:
    """Assert that `late` has exactly the oracle's late events, each with the pane it missed."""
    panes = {
        place: (int(m.headers["window_start"]), int(m.headers["window_end"]))
        for place, m in late.items()
    }
    assert panes == verdict.late
    for place, message in late.items():
        _assert_origin(env, message, events[place])


def _assert_origin(env: Environment, message: Message, event: Record) -> None:
    assert message.record.value == event.value
    assert message.record.key == event.key
    names = ("topic", "partition", "offset", "timestamp")
    expected = (env.stream.topic, event.partition, event.offset, event.timestamp_ms)
    assert [message.headers[name] for name in names] == [str(each) for each in expected]


def _schema_id(value: bytes | None) -> str:
    if value is None or len(value) < 5 or value[0] != 0:
        return ""
    return str(int.from_bytes(value[1:5], "big"))
