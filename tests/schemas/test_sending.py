"""What is sent before a bad piece is there before anybody is told so."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schemas import sending
from schemas.inputs import InputError
from schemas.sending import BadInput, Sending, send_file
from schemas.streams import PAGE_VIEWS

GOOD = b'{"event_id": "1", "event_time": 1431857103000, "user_id": "u", "page_id": "/a"}\n'


class Producer:
    """Takes events, and notes when they were waited for."""

    def __init__(self, *_: object) -> None:
        self.sent, self.flushed = 0, -1
        made.append(self)

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, _: Any) -> None:
        self.sent += 1

    def flush(self) -> None:
        self.flushed = self.sent


made: list[Producer] = []


def test_rate_is_kept_between_events_and_nothing_waits_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(sending, "time", clock)
    monkeypatch.setattr(sending, "EventProducer", Producer)
    monkeypatch.setattr(sending, "end_offsets", lambda *_: {0: 3})
    path = tmp_path / "three.jsonl"
    path.write_bytes(GOOD * 2 + b"{}\n" + GOOD)
    order = Sending(path, rate=0.5, skip_bad=True)
    sent = send_file({}, None, PAGE_VIEWS, order)  # type: ignore[arg-type]
    assert (sent.events, sent.skipped, sent.seconds) == (3, 1, 4.0)
    assert slept == [2.0, 2.0]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("bad.jsonl", GOOD * 3 + b"{}\n", BadInput),
        ("cut.jsonl.gz", None, InputError),
    ],
)
def test_events_before_a_bad_piece_are_delivered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: bytes | None,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(sending, "EventProducer", Producer)
    made.clear()
    if text is None:
        # Enough that some of it can be read before the end that is missing.
        rng = random.Random(1)
        lines = [GOOD.replace(b"/a", b"/%x" % rng.getrandbits(256)) for _ in range(5_000)]
        text = gzip.compress(b"".join(lines))[:-2_000]
    (tmp_path / name).write_bytes(text)
    with pytest.raises(error):
        send_file({}, None, PAGE_VIEWS, Sending(tmp_path / name))  # type: ignore[arg-type]
    (producer,) = made
    assert producer.flushed == producer.sent > 0
