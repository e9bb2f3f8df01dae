"""Data sets of page views: the same records for the same arguments, ready to be produced.

Every function returns records in the order in which they are to be written, each with its
partition; `offset` counts from zero in each partition, as Kafka does in a new topic.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import fastavro

from tests.oracle import MINUTE, SECOND, Record

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "schemas" / "samples" / "access.log.gz"
PARTITIONS = 4

# The evening of a leap day: minutes, hours, days and months all change on the way.
EVENING = 1_709_250_300_000  # 2024-02-29T23:45:00Z
HOUR = 60 * MINUTE

Event = dict[str, Any]
Draft = tuple[int, int, bytes | None, bytes | None]  # partition, timestamp_ms, key, value

V1: dict[str, Any] = json.loads((ROOT / "schemas" / "page_views.avsc").read_text())

# An earlier schema: fewer fields, and a duration that was an int.
V0: dict[str, Any] = {
    **V1,
    "fields": [
        *V1["fields"][:4],
        {"name": "duration_ms", "type": ["null", "int"], "default": None},
    ],
}

# A later schema: a field in the middle with a default, one renamed under an alias, one gone.
V2: dict[str, Any] = {
    **V1,
    "fields": [
        *V1["fields"][:2],
        {"name": "campaign", "type": ["null", "string"], "default": None},
        *(
            {**each, "name": "verb", "aliases": ["method"]} if each["name"] == "method" else each
            for each in V1["fields"][2:]
            if each["name"] != "referrer"
        ),
    ],
}

# A schema nobody should have registered: its users may be null.
NULLABLE_USER: dict[str, Any] = {
    **V1,
    "fields": [
        {**each, "type": ["null", "string"], "default": None} if each["name"] == "user_id" else each
        for each in V1["fields"]
    ],
}

STRANGE_PAGES = (
    *("/", "/a", "/A", "/a ", "/a|b", "/a,b", "/ü", "/é", "/e\u0301", "/emoji/🙂", "/nul\0byte"),
    *('/"quoted"', "/'single'", "/back\\slash", "/tab\there", "/new\nline", "\\N", "NULL", "null"),
    *("<script>alert(1)</script>", "/../../etc/passwd", "'; DROP TABLE x; --"),
)
PAGES = (*STRANGE_PAGES, *(f"/page/{number}" for number in range(50 - len(STRANGE_PAGES))))
STRANGE_USERS = ("b|c", "c", "B|C", "ü", "u\u0308", "🙂", "x\0y", "x", '"', "\\", "\n", "null", " ")


_PARSED = {id(each): fastavro.parse_schema(each) for each in (V0, V1, V2, NULLABLE_USER)}


def frame(event: Event, schema_id: int, schema: dict[str, Any] = V1) -> bytes:
    """Return `event` as Avro of `schema` in Confluent framing."""
    out = io.BytesIO()
    parsed = _PARSED.get(id(schema)) or fastavro.parse_schema(schema)
    fastavro.schemaless_writer(out, parsed, event)
    return struct.pack(">bI", 0, schema_id) + out.getvalue()


def partition_of(user: str) -> int:
    """Return the partition of a user's events."""
    return zlib.crc32(user.encode()) % PARTITIONS


def draft(event: Event, schema_id: int, schema: dict[str, Any] = V1) -> Draft:
    """Return what is to be written for a good `event`."""
    user = event["user_id"]
    value = frame(event, schema_id, schema)
    return partition_of(user), event["event_time"], user.encode(), value


def numbered(drafts: Iterable[Draft]) -> list[Record]:
    """Return `drafts` as records with the offsets of a new topic."""
    written: dict[int, int] = defaultdict(int)
    records = []
    for partition, timestamp_ms, key, value in drafts:
        records.append(Record(partition, written[partition], timestamp_ms, key, value))
        written[partition] += 1
    return records


_LOG_LINE = re.compile(
    r'(?P<host>\S+) \S+ \S+ \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" (?P<status>\d+) (?P<size>\S+)'
)


def sample_events(path: Path = SAMPLE) -> list[Event]:
    """Return the events of the sample access log, in the log's order."""
    events = []
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            found = _LOG_LINE.match(line)
            assert found, f"line {number + 1} of {path} is no access log line: {line!r}"
            moment = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
            events.append(
                {
                    "event_id": f"line-{number}",
                    "event_time": round(moment.timestamp()) * SECOND,
                    "user_id": found["host"],
                    "page_id": found["request"].split(" ")[1].split("?")[0],
                    "status": int(found["status"]),
                }
            )
    return events


def sample_log(schema_id: int) -> list[Record]:
    """Return the sample access log, in the log's order."""
    return numbered(draft(event, schema_id) for event in sample_events())


def shuffled_sample_log(schema_id: int, seed: int = 1) -> list[Record]:
    """Return the sample perturbed so that no event trails the newest by more than 10 s."""
    chance = random.Random(seed)
    return numbered(draft(event, schema_id) for event in _disordered(sample_events(), chance))


def dense_traffic(
    schema_id: int,
    *,
    events: int = 60_000,
    minutes: int = 30,
    pages: Sequence[str] = PAGES,
    users: int = 3_000,
    late_share: float = 0.0,
    broken_share: float = 0.0,
    start: int = EVENING,
    seed: int = 2,
) -> list[Record]:
    """Return traffic of many users on few pages: nulls in durations, errors, strange names.

    `late_share` of the events come 20 s to 12 min late: some are still taken, some are not.
    `broken_share` of the records are broken ones put between the others.
    """
    chance = random.Random(seed)
    names = [*STRANGE_USERS, *(f"user-{number}" for number in range(users - len(STRANGE_USERS)))]
    made = [_visit(n, chance, start, minutes * MINUTE, pages, names) for n in range(events)]
    drafts: list[Draft] = []
    for event in _disordered(made, chance, late_share):
        drafts.append(draft(event, schema_id))
        if chance.random() < broken_share:
            drafts.append((*draft(event, schema_id)[:3], b"\x01" + frame(event, schema_id)[1:]))
    return numbered(drafts)


def _visit(
    number: int,
    chance: random.Random,
    start: int,
    length: int,
    pages: Sequence[str],
    users: Sequence[str],
) -> Event:
    return {
        "event_id": f"visit-{number}",
        "event_time": start + chance.randrange(length),
        "user_id": chance.choice(users),
        "page_id": chance.choice(pages),
        "duration_ms": None if chance.random() < 0.3 else chance.randrange(90_000),
        "status": chance.choices((200, 404, 500, 503), (90, 6, 3, 1))[0],
        "bytes_sent": chance.choice((None, 0, 12_345)),
        "country": chance.choice((None, "DE", "CZ")),
    }


def _disordered(
    events: Iterable[Event], chance: random.Random, late_share: float = 0.0
) -> list[Event]:
    # An event placed by its time plus at most 10 s trails every earlier one by at most 10 s.
    def place(event: Event) -> float:
        delay: float = chance.uniform(0, 10 * SECOND)
        if chance.random() < late_share:
            delay = chance.uniform(20 * SECOND, 12 * MINUTE)
        return float(event["event_time"] + delay)

    return sorted(events, key=place)


def late_events(schema_id: int) -> list[Record]:
    """Return traffic with 5% late events, then on each partition the lateness to the millisecond.

    A minute's events are taken while the newest record is under 5 min 10 s past its last
    millisecond; a dead letter is a record like any other here.
    """
    traffic = dense_traffic(schema_id, events=4_000, late_share=0.05, seed=3)
    drafts: list[Draft] = [(r.partition, r.timestamp_ms, r.key, r.value) for r in traffic]
    hour = EVENING + 2 * HOUR
    for partition in range(PARTITIONS):
        user = user_on(partition)

        def at(ms: int, user: str = user) -> Draft:
            event = {"event_id": f"at-{ms}", "event_time": hour + ms, "user_id": user}
            return draft({**event, "page_id": "/edge"}, schema_id)

        drafts += [at(5_000), at(369_998), at(30_000), at(369_999), at(31_000), at(60_000)]
        drafts += [(partition, hour + 2 * HOUR, user.encode(), None), at(370_000), at(32_000)]
        drafts += [at(2 * HOUR), at(2 * HOUR - 6 * MINUTE), at(2 * HOUR + MINUTE)]
    return numbered(drafts)


def user_on(partition: int, prefix: str = "edge") -> str:
    """Return a user whose events go to `partition`."""
    names = (f"{prefix}-{number}" for number in range(1_000))
    return next(name for name in names if partition_of(name) == partition)


def returning_partition(schema_id: int) -> tuple[list[Record], list[Record]]:
    """Return two batches: all partitions go on for an hour but one, which then comes back.

    By its own watermark the events of the second batch are in time.
    """
    quiet = user_on(0)
    busy = [user_on(partition) for partition in range(1, PARTITIONS)]

    def visit(user: str, ms: int) -> Draft:
        event = {"event_id": f"{user}-{ms}", "event_time": EVENING + ms, "user_id": user}
        return draft({**event, "page_id": "/returning"}, schema_id)

    first = [visit(quiet, 30 * SECOND)]
    first += [visit(user, minute * MINUTE) for minute in range(61) for user in busy]
    second = [visit(quiet, ms * SECOND) for ms in (31, 40, 95, 100)]
    records = numbered([*first, *second])
    return records[: len(first)], records[len(first) :]


Break = Callable[[Event, bytes], tuple[int | None, bytes | None]]


def _changed(schema_id: int, **fields: Any) -> Break:
    return lambda event, value: (None, frame({**event, **fields}, schema_id))


def _bytes(change: Callable[[bytes], bytes | None]) -> Break:
    return lambda event, value: (None, change(value))


def breaks(schema_id: int, nullable_id: int, unknown_id: int) -> list[tuple[str, Break]]:
    """Return ways to break a good record, each with the reason code it must get."""

    def invalid_text(event: Event, value: bytes) -> tuple[None, bytes]:
        return None, frame({**event, "user_agent": "@@"}, schema_id).replace(b"@@", b"\xff\xfe")

    def userless(event: Event, value: bytes) -> tuple[None, bytes]:
        return None, frame({**event, "user_id": None}, nullable_id, NULLABLE_USER)

    def later(event: Event, value: bytes) -> tuple[int, bytes]:
        return event["event_time"] + 1, value

    return [
        ("empty", _bytes(lambda value: None)),
        ("empty", _bytes(lambda value: b"")),
        ("bad_magic", _bytes(lambda value: b"\x01" + value[1:])),
        ("bad_magic", _bytes(lambda value: b'{"page_id": "/json"}')),
        ("truncated", _bytes(lambda value: value[:1])),
        ("truncated", _bytes(lambda value: value[:4])),
        ("undecodable", _bytes(lambda value: value[:5])),
        ("undecodable", _bytes(lambda value: value[: len(value) // 2])),
        ("undecodable", _bytes(lambda value: value[:-1])),
        ("undecodable", _bytes(lambda value: value[:5] + b"\xff" * 40)),
        ("unknown_schema_id", _bytes(lambda v: struct.pack(">bI", 0, unknown_id) + v[5:])),
        ("unknown_schema_id", _bytes(lambda v: b"\x00\xff\xff\xff\xff" + v[5:])),
        ("trailing_bytes", _bytes(lambda value: value + b"\x00")),
        ("trailing_bytes", _bytes(lambda value: value + value)),
        ("oversize", _changed(schema_id, country="x" * 65_536)),
        # Nearly all that the broker takes: with its headers the dead letter is larger still.
        ("oversize", _changed(schema_id, country="x" * 2_096_600)),
        ("bad_text", invalid_text),
        ("missing", userless),
        ("bad_length", _changed(schema_id, user_id="")),
        ("bad_length", _changed(schema_id, page_id="")),
        ("bad_length", _changed(schema_id, event_id="")),
        ("bad_length", _changed(schema_id, user_id="ü" * 129)),
        ("bad_length", _changed(schema_id, referrer="r" * 8_193)),
        ("out_of_range", _changed(schema_id, status=0)),
        ("out_of_range", _changed(schema_id, status=600)),
        ("out_of_range", _changed(schema_id, duration_ms=-1)),
        ("out_of_range", _changed(schema_id, duration_ms=2**62)),
        ("out_of_range", _changed(schema_id, bytes_sent=-1)),
        ("out_of_range", _changed(schema_id, bytes_sent=10**12 + 1)),
        ("wrong_time", later),
        ("wrong_time", _changed(schema_id, event_time=-(2**62))),
    ]


def broken_traffic(
    schema_id: int, nullable_id: int, unknown_id: int, good_events: int = 6_000
) -> tuple[list[Record], dict[tuple[int, int], str]]:
    """Return traffic with 1% broken records between good ones, and the reason of each.

    Each way to break a record comes twice, so every one has good neighbours before and after.
    """
    traffic = dense_traffic(schema_id, events=good_events, seed=4)
    good = [_decoded(record) for record in traffic]
    ways = breaks(schema_id, nullable_id, unknown_id) * 2
    random.Random(5).shuffle(ways)
    every = len(good) // len(ways)
    drafts: list[Draft] = []
    reasons: dict[int, str] = {}
    for number, event in enumerate(good):
        drafts.append(draft(event, schema_id))
        if number % every == every // 2 and ways:
            reason, way = ways.pop()
            timestamp, value = way(event, drafts[-1][3] or b"")
            reasons[len(drafts)] = reason
            drafts.append((drafts[-1][0], timestamp or event["event_time"], drafts[-1][2], value))
    drafts += _at_the_limits(good[-1], schema_id)
    records = numbered(drafts)
    return records, {records[place].place: reason for place, reason in reasons.items()}


def _decoded(record: Record) -> Event:
    body = io.BytesIO((record.value or b"")[5:])
    event = fastavro.schemaless_reader(body, _PARSED[id(V1)], None)
    assert isinstance(event, dict)
    return {**event, "event_time": record.timestamp_ms}


def _at_the_limits(event: Event, schema_id: int) -> list[Draft]:
    """Return good events whose fields are as long and as large as allowed."""
    spare = 65_536 - len(frame({**event, "country": "x" * 60_000}, schema_id))
    return [
        draft({**event, **fields}, schema_id)
        for fields in (
            {"country": "x" * (60_000 + spare)},
            {"user_id": "ü" * 128, "event_id": "e" * 64},
            {"page_id": "/" * 2_048, "referrer": "r" * 8_192, "user_agent": "a" * 4_096},
            {"status": 100, "duration_ms": 0, "bytes_sent": 10**12},
            {"status": 599, "duration_ms": 24 * HOUR},
        )
    ]


def mixed_versions(
    schema_ids: tuple[int, int, int], *, events: int, start: int, seed: int = 6
) -> list[Record]:
    """Return traffic whose events were written, in turn, with `V0`, `V1` and `V2`."""
    base = dense_traffic(0, events=events, minutes=5, start=start, seed=seed)
    drafts = []
    for number, record in enumerate(base):
        version = number % 3
        event = _decoded(record)
        if version == 2:
            event |= {"campaign": "spring", "verb": "POST"}
        drafts.append(draft(event, schema_ids[version], (V0, V1, V2)[version]))
    return numbered(drafts)
