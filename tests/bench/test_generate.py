"""`kappa generate`: how many events it sends, and how it ends."""

from __future__ import annotations

import json
from typing import Any, Self

import pytest

from bench.commands import generate
from schemas.streams import Stream


class Recorder:
    """In the place of a producer: Ctrl-C comes with event `interrupted`."""

    interrupted = 0
    ends: list[Any]

    def __init__(self, kafka: object, registry: object, stream: Stream) -> None:
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.ends.append(kind)

    def flush(self) -> None:
        pass

    def send(self, event: object) -> None:
        if self.sent + 1 == self.interrupted:
            raise KeyboardInterrupt
        self.sent += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    kind = type("OfOneTest", (Recorder,), {"ends": []})
    monkeypatch.setattr("schemas.producer.EventProducer", kind)
    return kind


def counts(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_live_events_come_until_ctrl_c_and_are_counted(
    recorder: type[Recorder], capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.interrupted = 9_001
    generate("words", rate=1e7, events=None, hours=3.0, seed=1, as_json=True)
    assert counts(capsys) == {"words": 9_000}
    assert recorder.ends == [None], "what was sent is waited for"


@pytest.mark.parametrize(
    ("events", "rate", "sent"), [(None, 0, 5_000), (300, 0, 300), (2_300, 1e7, 2_300)]
)
def test_others_end_by_themselves(
    events: int | None,
    rate: float,
    sent: int,
    recorder: type[Recorder],
    capsys: pytest.CaptureFixture[str],
) -> None:
    generate("words", events=events, rate=rate, hours=3.0, seed=1, as_json=True)
    assert counts(capsys) == {"words": sent}


def test_what_is_sent_at_once_is_broken_off(recorder: type[Recorder]) -> None:
    recorder.interrupted = 100
    with pytest.raises(KeyboardInterrupt):
        generate("words", events=None, rate=0, hours=3.0, seed=1, as_json=True)
    assert recorder.ends == [KeyboardInterrupt]
