"""`kappa produce` and `kappa schemas`, run as people run them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.console import CommandError
from deploy.settings import PROJECT_ROOT, Settings
from schemas.commands import check_schema
from schemas.registry import Registry
from schemas.streams import Stream
from schemas.topics import end_offsets

GOOD = '{"event_id":"%d","event_time":"2015-05-17T10:05:0%dZ","user_id":"u%d","page_id":"/"}\n'


def kappa(settings: Settings, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        env=settings.environment(),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def kappa_json(settings: Settings, *words: str) -> Any:
    return json.loads(kappa(settings, *words, "--json").stdout)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file whose third line is no event."""
    path = tmp_path / "events.jsonl"
    lines = [GOOD % (n, n, n) for n in range(5)]
    lines[2] = '{"event_id":"2","event_time":1,"user_id":"u"}\n'
    path.write_text("".join(lines))
    return path


def test_sample_is_sent_whole_but_for_its_cut_line(settings: Settings, stream: Stream) -> None:
    done = kappa_json(settings, "produce")
    assert (done["events"], done["skipped"], done["format"]) == (9999, 1, "access-log")
    assert done["refusals"][0]["where"] == "access.log.gz, line 8899"
    ends = end_offsets(settings.kafka_client, stream.topic)
    assert done["end_offsets"] == {str(partition): end for partition, end in ends.items()}
    assert sum(ends.values()) == 9999


def test_bad_line_stops_with_its_place_and_what_came_before_is_sent(
    settings: Settings, stream: Stream, broken: Path
) -> None:
    done = kappa(settings, "produce", str(broken), code=1)
    assert 'events.jsonl, line 3: field "page_id" is missing. 2 events before it' in done.stderr
    assert "Traceback" not in done.stderr
    assert sum(end_offsets(settings.kafka_client, stream.topic).values()) == 2


def test_bad_lines_can_be_skipped_and_are_reported(settings: Settings, broken: Path) -> None:
    done = kappa_json(settings, "produce", str(broken), "--skip-bad", "--limit", "3")
    assert (done["events"], done["skipped"]) == (3, 1)
    assert done["refusals"] == [
        {"where": "events.jsonl, line 3", "why": 'field "page_id" is missing'}
    ]


def test_time_from_the_future_is_refused_where_it_stands(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "future.jsonl"
    path.write_text((GOOD % (1, 1, 1)).replace("2015-", "2115-"))
    done = kappa(settings, "produce", str(path), code=1)
    assert "future.jsonl, line 1" in done.stderr
    assert "more than 10 minutes ahead of the clock" in done.stderr


def test_rate_holds_the_sender_back(settings: Settings) -> None:
    done = kappa_json(settings, "produce", "--rate", "100", "--limit", "101")
    assert done["events"] == 101
    assert done["seconds"] >= 1.0


def test_schemas_lists_versions_before_and_after_registration(
    settings: Settings, stream: Stream
) -> None:
    (before,) = [row for row in kappa_json(settings, "schemas") if row["stream"] == stream.name]
    assert (before["versions"], before["current"]) == ([], "not registered")
    (registered,) = kappa_json(settings, "schemas", "register", stream.name)
    (after,) = [row for row in kappa_json(settings, "schemas") if row["stream"] == stream.name]
    assert after == {
        "stream": stream.name,
        "subject": stream.subject,
        "versions": [1],
        "latest_id": registered["id"],
        "compatibility": "BACKWARD_TRANSITIVE",
        "current": "registered",
    }


def test_schema_check_refuses_with_the_reason(
    settings: Settings, stream: Stream, tmp_path: Path
) -> None:
    kappa(settings, "schemas", "register", stream.name)
    changed = {**stream.schema, "fields": [*stream.schema["fields"], {"name": "x", "type": "int"}]}
    path = tmp_path / "page_views.avsc"
    path.write_text(json.dumps(changed))
    done = kappa(settings, "schemas", "check", str(path), code=1)
    assert 'field "x" is new and has no default; give it one.' in done.stderr
    path.write_text(json.dumps(stream.schema))
    assert "can follow" in kappa(settings, "schemas", "check", str(path)).stdout


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ('{"foo": 1}', "has no schema of a record, which an event is."),
        ('"string"', "has no schema of a record, which an event is."),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "strin"}]}',
            "has no Avro schema: UnknownType('strin').",
        ),
        (
            '{"type": "record", "name": "R", "fields": [{"name": "a"}]}',
            "has no Avro schema: SchemaParseException(\"Record field 'a' is missing 'type'\").",
        ),
        ("{", "can't read an Avro schema from"),
    ],
)
def test_check_refuses_what_is_no_schema_before_any_is_registered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, schema: str, said: str
) -> None:
    monkeypatch.setattr(Registry, "check", lambda *_: ())
    path = tmp_path / "words.avsc"
    path.write_text(schema)
    with pytest.raises(CommandError, match=re.escape(said)):
        check_schema(path)


def test_check_tells_of_a_file_that_is_not_there_before_it_asks_for_its_stream() -> None:
    with pytest.raises(
        CommandError, match=r"can't read an Avro schema from nowhere\.avsc: .*No such"
    ):
        check_schema(Path("nowhere.avsc"))


def test_misspelt_stream_and_format_end_in_one_sentence(settings: Settings) -> None:
    stream = kappa(settings, "produce", "--stream", "page_view", code=1)
    assert 'did you mean "page_views"?' in stream.stderr
    assert "Traceback" not in stream.stderr
    form = kappa(settings, "produce", "--format", "csv", code=1)
    assert '"csv" is no format; formats are: access-log, json-lines, avro.' in form.stderr
