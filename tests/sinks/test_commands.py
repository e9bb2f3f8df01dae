"""The commands over what is loaded, run as people run them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import httpx
import pytest
from confluent_kafka import Message
from prometheus_client import generate_latest

from deploy.console import CommandError, print_table
from deploy.settings import PROJECT_ROOT
from sinks.commands import load, sql
from sinks.dead_letters import REASONS
from sinks.metrics import Health, LoaderMetrics, NotServed, serve
from sinks.queries import explain_unknown_table
from sinks.topics import DeadLetterTopic, LateTopic, ViewTopic
from tests.harness import wait_for
from tests.sinks.loading import Sandbox


def kappa(sandbox: Sandbox, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli", *words],
        env={**os.environ, **sandbox.settings.environment(), **environment},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )


def as_json(sandbox: Sandbox, *words: str) -> Any:
    done = kappa(sandbox, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def filled(sandbox: Sandbox) -> Sandbox:
    topic = sandbox.topic()
    sandbox.create(topic)
    sandbox.write(topic, [("/a", 1, 3), ("/b", 1, 4)])
    return sandbox


def test_loading_once_ends_when_all_is_there_and_does_nothing_then(filled: Sandbox) -> None:
    assert as_json(filled, "load", "--once")["records"] >= 2
    assert filled.counts() == [("/a", 1, 3), ("/b", 1, 4)]
    assert as_json(filled, "load", "--once") == {"records": 0}


def test_sql_prints_columns_and_rows_with_times_in_utc(filled: Sandbox) -> None:
    as_json(filled, "load", "--once")
    query = "SELECT page, window_start, views, NULL AS none FROM counts ORDER BY page"
    assert as_json(filled, "sql", query) == {
        "columns": ["page", "window_start", "views", "none"],
        "rows": [
            ["/a", "1970-01-01T00:01:00Z", 3, None],
            ["/b", "1970-01-01T00:01:00Z", 4, None],
        ],
    }
    csv = kappa(filled, "sql", "SELECT page, views FROM counts ORDER BY page", "--csv")
    assert csv.stdout == '"page","views"\n"/a",3\n"/b",4\n'
    table = kappa(filled, "sql", "SELECT page FROM counts ORDER BY page", "--limit", "1")
    assert "/a" in table.stdout
    assert "/b" not in table.stdout
    assert "1 of 2 rows" in table.stderr


def test_a_table_keeps_what_counts_of_figures_and_obeys_no_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = (0.034, 1e-7, 12.0, 1_234_567.5, 1e300, -math.inf, None)
    print_table("", ("page", "share"), [("/\x1b[2J\x07\r\x9bé", share) for share in figures])
    lines = capsys.readouterr().out.splitlines()[3:-1]
    assert [line.strip("│ ").split("│") for line in lines] == [
        [r"/\x1b[2J\x07\x0d\x9bé ", f" {share:>11}"]
        for share in ("0.034", "1e-07", "12", "1,234,567.5", "1e+300", "-inf", "–")
    ]


def test_sql_says_in_one_sentence_what_is_wrong(filled: Sandbox) -> None:
    as_json(filled, "load", "--once")
    for query, sentence in (
        ("SELECT * FROM count", 'there is no table "count"; did you mean "counts"?'),
        ("INSERT INTO counts_v1 SELECT * FROM counts_v1", "this command only reads"),
        ("DROP TABLE counts_v1", "this command only reads"),
        ("SELECT 1 FORMAT JSON", "leave out FORMAT"),
        ("SELECT pages FROM counts", "identifier `pages`"),
    ):
        done = kappa(filled, "sql", query)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert len(filled.counts()) == 2


def test_options_that_could_not_both_be_heeded_are_refused() -> None:
    with pytest.raises(CommandError, match="--json and --csv exclude each other"):
        sql("SELECT 1", as_json=True, as_csv=True)
    with pytest.raises(CommandError, match="--json goes with --once"):
        load(once=False, as_json=True)


def test_sql_says_where_it_found_nobody(sandbox: Sandbox) -> None:
    done = kappa(sandbox, "sql", "SELECT 1", KAPPA_CLICKHOUSE_PORT="1")
    assert done.returncode == 1
    assert "ClickHouse at 127.0.0.1:1 does not answer: Connection refused" in done.stderr
    done = kappa(sandbox, "sql", "SELECT 1", KAPPA_CLICKHOUSE_READER_PASSWORD="wrong")
    assert "refuses user and password" in done.stderr
    done = kappa(sandbox, "sql", "SELECT * FROM counts")
    assert f"there is no database {sandbox.settings.database}" in done.stderr


def test_lag_shows_what_is_not_loaded(filled: Sandbox) -> None:
    before = as_json(filled, "lag")["partitions"]
    assert {one["topic"] for one in before} == {filled.topic()}
    # Each partition ends with the transaction's own marker.
    assert sum(one["lag"] for one in before) == filled.end(filled.topic())
    as_json(filled, "load", "--once")
    assert all(one["lag"] == 0 for one in as_json(filled, "lag")["partitions"])


def test_tables_shows_versions_and_rows(filled: Sandbox) -> None:
    filled.create(filled.topic(2))
    filled.write(filled.topic(2), [("/a", 1, 9)])
    as_json(filled, "load", "--once")
    found = as_json(filled, "tables")["tables"]
    assert [(t["name"], t["version"], t["public"], t["rows"]) for t in found] == [
        ("counts", 1, True, 2),
        ("counts", 2, False, 1),
    ]


def test_a_table_without_likeness_is_answered_with_what_there_is() -> None:
    message = "Unknown table expression identifier 'kappa.xyz'. In scope SELECT"
    assert explain_unknown_table(message, ["revenue", "late_events"]) == (
        'there is no table "xyz"; there are: late_events, revenue.'
    )
    assert "nothing is loaded yet" in explain_unknown_table(message, [])


def test_metrics_count_rows_and_age() -> None:
    metrics, health = LoaderMetrics(wall_clock=lambda: 1000.0), Health()
    metrics.rows.labels("counts_v1").inc(3)
    metrics.emitted("counts", 990_000)
    metrics.emitted("counts", 980_000)
    server = serve(metrics.registry, health, "127.0.0.1", 0)
    text = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", trust_env=False).text
    server.shutdown()
    assert 'kappa_loader_rows_total{table="counts_v1"} 3.0' in text
    assert 'kappa_loader_freshness_seconds{view="counts"} 10.0' in text


def test_metrics_count_dead_letters_by_reason_and_late_events() -> None:
    metrics = LoaderMetrics()
    letters = [
        Message(topic="dlq.clicks", headers=[("reason", reason)])
        for reason in (b"empty", b"undecodable", b"empty")
    ]
    metrics.judged(DeadLetterTopic("clicks", 1), letters)
    metrics.judged(LateTopic("clicks", 2), letters[:2])
    lines = generate_latest(metrics.registry).decode().splitlines()
    counted = [
        line for line in lines if line.startswith(("kappa_loader_dead", "kappa_loader_late"))
    ]
    assert [line for line in counted if "_created" not in line] == [
        'kappa_loader_dead_letters_total{reason="empty",stream="clicks",version="1"} 2.0',
        'kappa_loader_dead_letters_total{reason="undecodable",stream="clicks",version="1"} 1.0',
        'kappa_loader_late_events_total{stream="clicks",version="2"} 2.0',
    ]


def test_what_a_topic_may_bring_is_counted_from_zero() -> None:
    metrics = LoaderMetrics()
    for source in (DeadLetterTopic("clicks", 1), LateTopic("clicks", 2), ViewTopic("clicks", 3)):
        metrics.expects(source)
    metrics.judged(
        DeadLetterTopic("clicks", 1), [Message(topic="dlq.clicks", headers=[("reason", b"empty")])]
    )
    metrics.expects(DeadLetterTopic("clicks", 1))
    said = (PROJECT_ROOT / "docs/EVENTS.md").read_text().split("## Why an event")[1]
    reasons = re.findall("`([a-z_]+)`", said.split("A registry")[0])
    found = generate_latest(metrics.registry).decode()
    counts = dict(re.findall(r'dead_letters_total\{reason="(\w+)",.*"1"\} (.+)', found))
    assert counts == {reason: "1.0" if reason == "empty" else "0.0" for reason in reasons}
    assert 'kappa_loader_late_events_total{stream="clicks",version="2"} 0.0' in found
    assert tuple(reasons) == REASONS


def test_health_names_what_waits_and_a_loop_that_stands_still() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    server = serve(LoaderMetrics().registry, health, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.server_port}/healthz"

    def answer() -> tuple[int, str]:
        reply = httpx.get(address, trust_env=False)
        return reply.status_code, reply.text

    assert answer() == (200, "ok\n")
    health.trouble("views.counts.v1", "ClickHouse does not answer")
    assert answer() == (200, "views.counts.v1 waits: ClickHouse does not answer\n")
    health.recovered("views.counts.v1")
    now[0] = 100.0
    assert answer() == (503, "the loader's loop stands still for 100 s\n")
    health.beat()
    assert answer() == (200, "ok\n")
    server.shutdown()


def test_a_loader_serves_metrics_even_where_the_port_is_taken() -> None:
    first = serve(LoaderMetrics().registry, Health(), "127.0.0.1", 0)
    second = serve(LoaderMetrics().registry, Health(), "127.0.0.1", first.server_port)
    assert second.server_port != first.server_port
    first.shutdown()
    second.shutdown()


def test_metrics_on_a_host_that_is_none_are_told_of_in_one_sentence() -> None:
    with pytest.raises(NotServed, match=r"served on foo\.invalid: .*; set KAPPA_METRICS_HOST"):
        serve(LoaderMetrics().registry, Health(), "foo.invalid", 0)


def test_the_stacks_own_loader_is_healthy(sandbox: Sandbox) -> None:
    address = f"http://127.0.0.1:{sandbox.settings.port(251)}/healthz"
    reply = wait_for(lambda: httpx.get(address, trust_env=False), 30, "the loader's health")
    assert reply.text == "ok\n"
