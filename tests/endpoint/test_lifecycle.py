"""Kills, restarts, limits and background work of the endpoint's process."""

from __future__ import annotations

import gzip
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from tests.endpoint.running import OWNER, OWNER_PASSWORD, READER, Endpoint, free_port, wait_for

pytestmark = pytest.mark.stack

Start = Callable[..., Endpoint]
_SLOW = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"


def _running(endpoint: Endpoint, sql: str) -> bool:
    """Return whether a query with that text runs."""
    count = "SELECT count() FROM system.processes WHERE query = {sql:String}"
    return endpoint.text(count, param_sql=sql) == "1\n"


def _create(endpoint: Endpoint) -> None:
    endpoint.text("CREATE TABLE t (k UInt64, name String) ENGINE = MergeTree ORDER BY k")


def test_acknowledged_rows_outlive_a_kill(fresh: Start) -> None:
    endpoint = fresh()
    _create(endpoint)
    endpoint.text("CREATE TABLE default.d (k UInt64) ENGINE = MergeTree ORDER BY k")
    expected = 0
    for _ in range(3):
        for _ in range(5):
            first = expected
            endpoint.text(f"INSERT INTO t SELECT number + {first}, 'x' FROM numbers(1000)")
            expected += 1000
        endpoint.text("INSERT INTO default.d VALUES (1)")
        assert endpoint.stop(signal.SIGKILL) == -signal.SIGKILL
        endpoint.start()
        assert endpoint.text("SELECT count(), uniqExact(k), max(k) FROM t") == (
            f"{expected}\t{expected}\t{expected - 1}\n"
        )
    assert endpoint.text("SELECT count() FROM default.d") == "3\n"


def test_a_kill_amid_inserts_keeps_each_whole_or_not_at_all(fresh: Start) -> None:
    endpoint = fresh()
    _create(endpoint)
    acknowledged = []

    def insert() -> None:
        while True:
            batch = len(acknowledged)
            rows = "".join(f"{batch},{k}\n" for k in range(5000))
            try:
                endpoint.text(f"INSERT INTO t FORMAT CSV\n{rows}")
            except (httpx.HTTPError, AssertionError):
                return
            acknowledged.append(batch)

    inserter = threading.Thread(target=insert)
    inserter.start()
    wait_for(lambda: len(acknowledged) >= 10)
    endpoint.stop(signal.SIGKILL)
    inserter.join()
    endpoint.start()
    counts = endpoint.text("SELECT k, count() FROM t GROUP BY k ORDER BY k").splitlines()
    assert {line.split("\t")[1] for line in counts} == {"5000"}
    kept = {int(line.split("\t")[0]) for line in counts}
    assert kept - set(acknowledged) <= {len(acknowledged)}
    assert set(acknowledged) <= kept
    assert not list((endpoint.home / "data" / "clickhouse" / "incoming").iterdir())


def test_a_stop_finishes_running_queries(fresh: Start) -> None:
    endpoint = fresh(stop_seconds=60)
    slow = "SELECT sum(sleepEachRow(0.5)) FROM numbers(6) SETTINGS max_block_size = 1"
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(endpoint.query, slow)
        wait_for(lambda: _running(endpoint, slow))
        assert endpoint.process is not None
        endpoint.process.send_signal(signal.SIGTERM)
        assert answer.result(timeout=60).text == "0\n"
    assert endpoint.process.wait(timeout=30) == 0
    assert endpoint.log.read_text().splitlines()[-1].endswith("stopped")
    endpoint.start()
    assert endpoint.text("SELECT 1") == "1\n"


def test_a_stop_does_not_wait_for_endless_queries(fresh: Start) -> None:
    endpoint = fresh(stop_seconds=1)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(endpoint.query, _SLOW)
        wait_for(lambda: _running(endpoint, _SLOW))
        assert endpoint.process is not None
        started = time.monotonic()
        endpoint.process.send_signal(signal.SIGTERM)
        assert "QUERY_WAS_CANCELLED" in answer.result(timeout=30).text
    assert endpoint.process.wait(timeout=30) == 0
    assert time.monotonic() - started < 15


def test_an_idle_endpoint_stops_at_once(fresh: Start) -> None:
    endpoint = fresh()
    endpoint.text("SELECT 1", session_id="kept")
    started = time.monotonic()
    assert endpoint.stop() == 0
    assert time.monotonic() - started < 10


def test_a_second_process_is_kept_off_the_data(fresh: Start) -> None:
    endpoint = fresh()
    environment = endpoint.environment() | {"KAPPA_CLICKHOUSE_PORT": str(free_port())}
    command = [sys.executable, "-m", "deploy.clickhouse_endpoint"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: Another endpoint holds the ClickHouse data in {endpoint.home}/data/clickhouse; "
        "stop it, or set KAPPA_HOME.\n"
    )
    assert endpoint.text("SELECT 1") == "1\n"


def test_a_port_in_use_is_named(fresh: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    endpoint = fresh()
    home = tmp_path_factory.mktemp("other")
    environment = endpoint.environment() | {"KAPPA_HOME": str(home)}
    command = [sys.executable, "-m", "deploy.clickhouse_endpoint"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"error: Port {endpoint.port} can't be used: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_long_query_ends_by_its_time_limit_and_inserts_go_on(fresh: Start) -> None:
    endpoint = fresh(max_execution_seconds=3)
    _create(endpoint)
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(endpoint.query, _SLOW, reader=True) for _ in range(4)]
        for k in range(20):
            endpoint.text(f"INSERT INTO t VALUES ({k}, 'x')")
        assert not all(answer.done() for answer in slow)
        for answer in slow:
            assert answer.result(timeout=30).status_code == 408
            assert "TIMEOUT_EXCEEDED" in answer.result().text
    assert endpoint.text("SELECT count() FROM t") == "20\n"


def test_too_many_queries_wait_and_are_refused_and_inserts_go_on(fresh: Start) -> None:
    endpoint = fresh(max_reads=2, workers=6, read_wait_seconds=0.5, max_execution_seconds=20)
    _create(endpoint)
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(endpoint.query, _SLOW, max_execution_time="6") for _ in range(2)]
        wait_for(lambda: 'running_queries{kind="select"} 2.0' in _metrics(endpoint))
        refused = endpoint.query("SELECT 1")
        assert refused.headers["X-ClickHouse-Exception-Code"] == "202"
        endpoint.text("INSERT INTO t VALUES (1, 'x')")
        assert [answer.result(timeout=60).status_code for answer in slow] == [408, 408]
    assert endpoint.text("SELECT count() FROM t") == "1\n"


def _metrics(endpoint: Endpoint) -> str:
    return endpoint.http.get(f"{endpoint.url}/metrics").text


@pytest.mark.parametrize("ending", ["", " FORMAT JSON"])
def test_a_query_whose_client_goes_is_cancelled(fresh: Start, ending: str) -> None:
    endpoint = fresh()
    sql = _SLOW + ending
    credentials = b64encode(f"{OWNER}:{OWNER_PASSWORD}".encode()).decode()
    request = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
        f"Content-Length: {len(sql)}\r\n\r\n{sql}"
    )
    with socket.create_connection(("127.0.0.1", endpoint.port)) as client:
        client.sendall(request.encode())
        wait_for(lambda: _running(endpoint, sql))
    wait_for(lambda: not _running(endpoint, sql), seconds=10)
    assert endpoint.text("SELECT 1") == "1\n"


def test_an_endless_answer_nobody_reads_to_its_end_is_cancelled(fresh: Start) -> None:
    endpoint = fresh()
    sql = "SELECT number FROM numbers(100000000000)"
    auth = (OWNER, OWNER_PASSWORD)
    with endpoint.http.stream("POST", endpoint.url, content=sql, auth=auth) as answer:
        assert next(answer.iter_raw()).startswith(b"0\n1\n2\n")
    wait_for(lambda: not _running(endpoint, sql), seconds=10)
    assert endpoint.text("SELECT 1") == "1\n"


def test_bodies_and_answers_have_their_limits(fresh: Start) -> None:
    mib = 1024 * 1024
    endpoint = fresh(max_body_bytes=2 * mib, max_statement_bytes=mib, max_result_bytes=mib)
    _create(endpoint)
    rows = b"1,x\n" * mib
    too_long = endpoint.query(rows, query="INSERT INTO t FORMAT CSV")
    assert too_long.status_code == 413
    chunks = (rows[start : start + 65536] for start in range(0, len(rows), 65536))
    auth = (OWNER, OWNER_PASSWORD)
    insert = {"query": "INSERT INTO t FORMAT CSV"}
    # The endpoint may hang up before all is sent.
    with suppress(httpx.TransportError):
        answer = endpoint.http.post(endpoint.url, params=insert, content=chunks, auth=auth)
        assert answer.status_code == 413
    bomb = gzip.compress(b"1,x\n" * mib * 4)
    headers = {"Content-Encoding": "gzip"}
    answer = endpoint.http.post(
        endpoint.url, params=insert, content=bomb, auth=auth, headers=headers
    )
    assert answer.status_code == 413
    assert endpoint.query("SELECT 1 -- " + "x" * (mib + 100_000)).status_code == 413
    assert endpoint.text("SELECT count() FROM t") == "0\n"
    big = "SELECT number FROM numbers(1000000)"
    assert "TOO_MANY_ROWS_OR_BYTES" in endpoint.query(big, wait_end_of_query=1).text
    assert len(endpoint.query(big).content) == 6_888_890


def test_a_silent_client_is_hung_up_on(fresh: Start) -> None:
    endpoint = fresh(client_timeout_seconds=1)
    credentials = b64encode(f"{OWNER}:{OWNER_PASSWORD}".encode()).decode()
    for begun in (
        "POST / HTT",
        f"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n"
        "Content-Length: 100\r\n\r\nSELECT",
    ):
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=20) as client:
            client.sendall(begun.encode())
            answer = b""
            while part := client.recv(4096):
                answer += part
            assert answer == b"" or answer.split(b" ")[1] in (b"408", b"503")
    assert endpoint.text("SELECT 1") == "1\n"


def test_parts_are_merged_and_old_rows_expire(fresh: Start) -> None:
    endpoint = fresh()
    endpoint.text(
        "CREATE TABLE r (k UInt64, v UInt64, _revision UInt64, at DateTime) "
        "ENGINE = ReplacingMergeTree(_revision) ORDER BY k TTL at + INTERVAL 1 HOUR "
        "SETTINGS merge_with_ttl_timeout = 1, min_age_to_force_merge_seconds = 1"
    )
    for revision in range(10):
        endpoint.text(
            f"INSERT INTO r SELECT number, {revision}, {revision}, now() FROM numbers(100)"
        )
    final = "SELECT count(), min(v), max(v) FROM r FINAL"
    assert endpoint.text(final) == "100\t9\t9\n"
    endpoint.text("INSERT INTO r SELECT number + 1000, 0, 0, now() - 7200 FROM numbers(100)")
    merged = "SELECT count(), min(v), max(v) FROM r"
    wait_for(lambda: endpoint.text(merged) == "100\t9\t9\n", seconds=60)


def test_view_pointers_flip_at_once(fresh: Start) -> None:
    endpoint = fresh()
    for version in (1, 2):
        endpoint.text(f"CREATE TABLE v_v{version} (n UInt8) ENGINE = MergeTree ORDER BY n")
        endpoint.text(f"INSERT INTO v_v{version} VALUES ({version})")
    endpoint.text("CREATE VIEW v AS SELECT n FROM v_v1")
    assert endpoint.text("SELECT n FROM v", reader=True) == "1\n"
    endpoint.text("CREATE OR REPLACE VIEW v AS SELECT n FROM v_v2")
    assert endpoint.text("SELECT n FROM v", reader=True) == "2\n"
    endpoint.text("EXCHANGE TABLES v_v1 AND v_v2")
    assert endpoint.text("SELECT n FROM v", reader=True) == "1\n"


def test_many_clients_at_once(fresh: Start) -> None:
    endpoint = fresh()
    _create(endpoint)

    def work(worker: int) -> int:
        with httpx.Client(timeout=60, trust_env=False) as http:
            auth = (OWNER, OWNER_PASSWORD)
            for k in range(30):
                key = worker * 1000 + k
                insert = f"INSERT INTO t VALUES ({key}, 'w{worker}')"
                assert http.post(endpoint.url, content=insert, auth=auth).status_code == 200
                sql = f"SELECT k, name FROM t WHERE k = {key}"
                session = {"session_id": f"s{worker % 5}"} if k % 10 == 0 else {}
                answer = http.post(endpoint.url, content=sql, auth=auth, params=session)
                locked = answer.headers.get("X-ClickHouse-Exception-Code") == "373"
                assert locked or answer.text == f"{key}\tw{worker}\n"
                failing = http.post(endpoint.url, content="SELECT throwIf(1)", auth=auth)
                assert failing.status_code == 500
        return worker

    with ThreadPoolExecutor(24) as pool:
        assert sorted(pool.map(work, range(24))) == list(range(24))
    assert endpoint.text("SELECT count(), uniqExact(k) FROM t") == "720\t720\n"


def test_the_log_names_no_password(fresh: Start) -> None:
    endpoint = fresh()
    endpoint.query("SELECT 1")
    endpoint.http.post(endpoint.url, content="SELECT 1", auth=(READER, "wrong-secret"))
    log = endpoint.log.read_text()
    assert OWNER_PASSWORD not in log
    assert "wrong-secret" not in log
