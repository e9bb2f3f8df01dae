"""`kappa dlq`: dead letters are counted, mended and sent again, each exactly once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests import datasets
from tests.harness import (
    Environment,
    create_topic,
    kappa,
    produce,
    read_topic,
    register,
    start_loader,
)
from tests.harness import submit_page_views as submit
from tests.oracle import Verdict
from tests.replay.running import project_with, run
from tests.settling import assert_status, settle

pytestmark = pytest.mark.stack

MEND = ("--set", "status=200", "--set", "duration_ms=1", "--set", "bytes_sent=1")


def test_mended_letters_are_counted_once(empty: Environment, tmp_path: Path) -> None:
    env = empty
    schema_id = register(env, datasets.V1)
    nullable_id = register(env, datasets.NULLABLE_USER, subject=env.stream.prefixed("mistake"))
    create_topic(env)
    submit(env)
    start_loader(env)
    records, reasons = datasets.broken_traffic(
        schema_id, nullable_id, unknown_id=10**6, good_events=600
    )
    produce(env, records)
    before = settle(env, 240)
    listed = {row["reason"]: row["events"] for row in kappa(env, "dlq", "list")}
    assert listed == Counter(reasons.values())
    ranges, lengths = (
        sum(r == n for r in reasons.values()) for n in ("out_of_range", "bad_length")
    )

    wrong = kappa(env, "dlq", "show", "--reason", "out_of_range", "--limit", "1000")
    dry = kappa(env, "dlq", "reinject", "--reason", "out_of_range", *MEND, "--dry-run")
    assert (dry["sent"], len(dry["ready"])) == (0, ranges)
    sent = kappa(env, "dlq", "reinject", "--reason", "out_of_range", *MEND, "--yes")
    assert sent["sent"] == ranges
    again = kappa(env, "dlq", "reinject", "--reason", "out_of_range", *MEND, "--yes")
    assert (again["sent"], len(again["before"])) == (0, ranges)

    # Killed after the transaction and before it was noted; and killed before the transaction.
    _leave(env, "UPDATE kappa.reinjected_events SET state = 'sending' WHERE namespace = %s")
    assert kappa(env, "dlq", "reinject", "--reason", "empty", "--yes")["sent"] == 0
    repairs = tmp_path / "lengths.jsonl"
    mend = ("--set", "event_id=e", "--set", "user_id=u", "--set", "page_id=/p")
    mend += ("--set", "referrer=null", "--set", "user_agent=null")
    written = kappa(env, "dlq", "repair", str(repairs), "--reason", "bad_length", *mend)
    assert (written["events"], written["good"]) == (lengths, lengths)
    [place] = [place for place, reason in reasons.items() if reason == "bad_length"][:1]
    _leave(
        env,
        "INSERT INTO kappa.reinjected_events"
        " VALUES (%s, 'page_views', %s, %s, 'sending', '', '{}')",
        *place,
    )
    sent = kappa(env, "dlq", "reinject", "--from", str(repairs), "--yes")
    assert sent["sent"] == lengths

    after = settle(env, 240)
    # Some come back too late for their windows, and stand among the late events.
    assert _taken(after) == _taken(before) + ranges + lengths
    assert after.dead == before.dead
    ends, events = _event_ends(env), read_topic(env, env.stream.topic)
    assert_status(env, after, markers=sum(ends.values()) - len(events))
    # What a rebuild waits for lies before the marker of the last transaction.
    pinned = kappa(env, "replay", "plan", "page_views_per_minute")["pinned"]["page_views"]
    assert {int(partition): end for partition, end in pinned.items()} == ends

    rule = 'Range("status", minimum=100, maximum=599)'
    loosened = project_with(tmp_path, "schemas/streams.py", {rule: rule.replace("599", "600")})
    planned = run(env, "replay", "plan", "page_views_per_minute", project=loosened)
    assert planned.returncode == 1
    taken = sum(letter["event"]["status"] == 600 for letter in wrong)
    assert f"mended and sent again ({taken}, the first in" in " ".join(planned.stderr.split())


def _event_ends(env: Environment) -> dict[int, int]:
    places = [message.record.place for message in read_topic(env, env.stream.topic)]
    return {part: offset + 1 for part, offset in sorted(places)}


def _taken(verdict: Verdict) -> int:
    return len(verdict.aggregated) + len(verdict.late)


def _leave(env: Environment, statement: str, *values: int) -> None:
    """Change the journal as a process would leave it that is killed at a certain moment."""
    with psycopg.connect(env.settings.postgres) as connection:
        changed = connection.execute(statement, (env.settings.namespace, *values))  # type: ignore[arg-type]
        assert changed.rowcount
