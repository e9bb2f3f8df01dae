"""What ClickHouse is asked: within bounds, on a cluster too, and without harm when it hangs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from serving import reading
from serving.errors import ApiError
from serving.reading import MAX_ANSWER_BYTES, QUERY_SECONDS, Readers, read_catalogue
from sinks.clickhouse import Answer, ClickHouse
from tests.endpoint.running import Endpoint
from tests.serving.conftest import settings_over
from tests.serving.site import Database, Row, Server, serving
from tests.serving.test_api import COUNTS, KEY, all_pages, as_json, row, rows_of

THROWS_CODES = "allow_custom_error_code_in_throwif = 1"
TOO_MUCH = (
    400,
    "The answer has more than 16 MB; ask for fewer rows with limit, and page on with the cursor.",
)


class Shard:
    """A server of a cluster as it describes itself, with the rows of its own shard."""

    database = "views"
    TABLES = (
        ("counts", 1, "Version 1. About counts.", "", 0),
        ("counts_v1", 0, "", "", 0),
        ("counts_v1_local", 0, "", "window_start, page_id", 12),
    )

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        if "sorting_key" in sql:
            return Answer((), list(self.TABLES))
        if "system.columns" in sql:
            return Answer((), [("counts", "page_id", "String", "")])
        if "system.tables" in sql:
            return Answer((), [(name, comment, view) for name, view, comment, *_ in self.TABLES])
        assert sql == "SELECT 'counts_v1', count() FROM `counts_v1`"
        return Answer((), [("counts_v1", 48)])


def test_on_a_cluster_key_and_rows_are_those_of_all_shards() -> None:
    views = read_catalogue(cast(ClickHouse, Shard()))
    assert list(views) == ["counts"]
    counts = views["counts"]
    assert (counts.key, counts.stored_rows) == (("window_start", "page_id"), 48)
    assert (counts.table, counts.version, counts.versions) == ("counts_v1", 1, (1,))


@pytest.fixture
def spread(database: Database, server: Server) -> list[Row]:
    """A view over a table that has its rows elsewhere and no key itself, as on a cluster."""
    made = [row(page, at, at) for at in range(3) for page in ("/a", "/b")]
    database.view("spread", COUNTS, KEY, made)
    home = database.settings.database
    database.clickhouse.command(f"RENAME TABLE {home}.spread_v1 TO {home}.spread_v1_local")
    database.clickhouse.command(
        f"CREATE TABLE {home}.spread_v1 ENGINE = Merge('{home}', '^spread_v1_local$')"
    )
    return sorted(made, key=lambda one: (one["window_start"], one["page_id"]), reverse=True)


def test_a_view_over_a_cluster_filters_and_pages(server: Server, spread: list[Row]) -> None:
    wanted = [as_json(one) for one in spread]
    assert all_pages(server, "spread", limit="1") == wanted
    assert rows_of(server, "spread", page_id="/b") == [wanted[n] for n in (0, 2, 4)]


def test_an_answer_has_no_more_bytes_than_agreed(database: Database, server: Server) -> None:
    columns, letters = {"page_id": "string", "text": "string"}, MAX_ANSWER_BYTES // 8
    rows = [{"page_id": f"/{n}", "text": "x" * letters} for n in range(9)]
    database.view("wide", columns, ("page_id",), rows)
    assert server.refusal("/api/views/wide") == TOO_MUCH
    assert server.refusal("/api/views/wide", format="csv") == TOO_MUCH
    assert rows_of(server, "wide", limit="5") == rows[:5]


def test_a_query_takes_no_longer_than_agreed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_EXECUTION_SECONDS", 1)
    with closing(Readers(database.settings)) as readers, pytest.raises(ApiError) as refused:
        readers.rows("SELECT count() FROM numbers(100000000000) WHERE sin(number) > 2", {}, 1)
    assert (refused.value.status, str(refused.value)) == (
        400,
        "The query takes longer than 1 s; ask for a shorter time or by key.",
    )


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        (202, 503, "Too many queries run at once; ask again."),
        (
            241,
            400,
            "The query needs more memory than it may have; ask for fewer rows, for a shorter time "
            "or by key.",
        ),
    ],
)
def test_what_overload_or_a_query_that_is_too_big_causes_is_no_fault_of_the_server(
    database: Database, code: int, status: int, sentence: str
) -> None:
    sql = f"SELECT throwIf(1, 'no', toInt32({code})) SETTINGS {THROWS_CODES}"
    # The reader itself may not choose with which code a query fails.
    owner = {
        "clickhouse_reader": database.settings.clickhouse_user,
        "clickhouse_reader_password": database.settings.clickhouse_password,
    }
    settings = database.settings.model_copy(update=owner)
    with closing(Readers(settings)) as readers, pytest.raises(ApiError) as refused:
        readers.rows(sql, {}, 1)
    assert (refused.value.status, str(refused.value)) == (status, sentence)


def test_views_are_read_once_a_second_whoever_asks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def read(_: ClickHouse) -> dict[str, Any]:
        began.append(time.monotonic())
        raise ApiError(503, "It fails.", 2)

    monkeypatch.setattr(reading, "read_catalogue", read)
    with closing(Readers(database.settings)) as readers:
        while not began or time.monotonic() < began[0] + 2.5:
            with pytest.raises(ApiError, match="It fails"):
                readers.views()
    assert len(began) in (2, 3)


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        held: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def test_what_needs_no_clickhouse_is_served_while_it_hangs(
    serving_endpoint: Endpoint, tmp_path: Path
) -> None:
    with silent() as port:
        settings = settings_over(serving_endpoint, tmp_path)
        settings = settings.model_copy(update={"clickhouse_port": port})
        with serving(settings, tmp_path / "log") as server, ThreadPoolExecutor(80) as crowd:
            asking = [crowd.submit(server.get, "/api/views/counts") for _ in range(80)]
            wait(asking, return_when=FIRST_COMPLETED)
            for path in ("/", "/static/main.js", "/metrics", "/healthz"):
                # Less than a query may take: it must wait for none.
                assert server.get(path, timeout=QUERY_SECONDS - 2).status_code == 200
            assert not all(one.done() for one in asking)
            assert {one.result().status_code for one in asking} == {503}
