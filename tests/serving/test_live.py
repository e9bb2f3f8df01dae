"""The live socket: a picture each second, for every client, whatever the others do."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import WebSocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serving import live
from serving.lanes import rest_seconds
from serving.live import PINGS, Hub
from serving.metrics import ServingMetrics
from serving.panels import accounts
from serving.reading import read_catalogue
from sinks.dead_letters import DEAD_LETTERS, LATE_EVENTS, create_raw_table, create_raw_view
from tests.endpoint.running import Endpoint
from tests.serving.conftest import settings_over
from tests.serving.site import Database, Server, minute, serving

SECONDS = 60


def join(server: Server, **more: Any) -> ClientConnection:
    return connect(server.socket_url, proxy=None, open_timeout=SECONDS, **more)


def picture(client: ClientConnection) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.recv(timeout=SECONDS))
    return found


def read(client: ClientConnection, messages: int) -> None:
    for _ in range(messages):
        client.recv(timeout=SECONDS)


def test_a_picture_comes_each_second(server: Server) -> None:
    with join(server) as client:
        picture(client)
        pictures = [picture(client) for _ in range(4)]
    numbers = [one["number"] for one in pictures]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(pictures)]
    assert 500 <= statistics.median(gaps) <= 2000, gaps
    assert set(pictures[0]["sections"]) == {
        "events",
        "accounts",
        "traffic",
        "views",
        "jobs",
        "lags",
        "replays",
        "clickhouse",
    }


def test_sources_that_are_down_are_named_and_hold_up_no_other(
    database: Database, server: Server
) -> None:
    database.view("seen_live", {"page_id": "string"}, ("page_id",), [{"page_id": "/a"}])
    with join(server) as client:
        for _ in range(SECONDS):
            sections = picture(client)["sections"]
            names = [view["name"] for view in sections["views"]["data"] or []]
            if "seen_live" in names and sections["replays"]["problem"]:
                break
    assert "seen_live" in names
    assert sections["views"]["problem"] == ""
    assert sections["jobs"]["data"] is None
    assert sections["jobs"]["problem"].startswith("no Flink cluster answers at")
    assert sections["replays"]["problem"].startswith("PostgreSQL, the control plane, does not")


@pytest.mark.parametrize(
    ("took", "factor", "seconds"),
    [(0.05, 1.0, 0.95), (0.05, 9.0, 0.95), (0.4, 9.0, 3.6), (3.0, 9.0, 4.0), (12.0, 9.0, 12.0)],
)
def test_a_source_that_costs_much_is_asked_less_often(
    took: float, factor: float, seconds: float
) -> None:
    assert rest_seconds(took, 1.0, factor) == seconds


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://["]
)
def test_a_page_of_another_origin_is_refused(server: Server, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused, join(server, origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_a_page_of_its_own_origin_is_served(server: Server) -> None:
    with join(server, origin=server.url) as client:
        assert picture(client)["number"] > 0


def test_another_name_is_refused(server: Server) -> None:
    given = {"host": "evil.example", "origin": "http://evil.example"}
    with pytest.raises(InvalidStatus), join(server, additional_headers=given):
        pass


def test_what_a_client_sends_comes_back_if_it_is_short(server: Server) -> None:
    with join(server) as client:
        client.send("ping 12.5")
        answers = [client.recv(timeout=SECONDS) for _ in range(3)]
        assert "ping 12.5" in answers
        client.send("x" * 65)
        with pytest.raises(ConnectionClosed) as closed:
            list(client)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_a_client_that_sends_without_end_is_closed(server: Server) -> None:
    with join(server) as client:
        for number in range(PINGS + 1):
            client.send(f"ping {number}")
        with pytest.raises(ConnectionClosed) as closed:
            read(client, PINGS + SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


class Client:
    """A live client whose pictures arrive only while it reads."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.got: list[str] = []
        self.closed_with: int | None = None

    async def close(self, code: int) -> None:
        self.closed_with = code

    async def send_text(self, text: str) -> None:
        await self.reads.wait()
        self.got.append(text)

    async def receive_text(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_client_that_reads_slowly_gets_the_newest_and_slows_no_other() -> None:
    async def scene() -> tuple[list[str], list[str], list[str]]:
        metrics = ServingMetrics()
        hub = Hub(metrics)
        hub.publish("0")
        slow, quick = Client(), Client()
        quick.reads.set()
        serving_them = [
            asyncio.create_task(hub.serve(cast(WebSocket, one), lambda: None))
            for one in (slow, quick)
        ]
        for number in range(1, 6):
            await settled()
            hub.publish(str(number))
        await settled()
        held = list(slow.got)
        slow.reads.set()
        await settled()
        for one in serving_them:
            one.cancel()
        await asyncio.gather(*serving_them, return_exceptions=True)
        assert metrics.skipped._value.get() == 4
        assert hub.clients == 0
        return held, slow.got, quick.got

    held, slow, quick = asyncio.run(scene())
    assert quick == ["0", "1", "2", "3", "4", "5"]
    assert held == []
    assert slow == ["0", "5"]


def test_a_client_that_never_reads_is_closed_at_its_first_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "_SEND_SECONDS", 0.05)
    hub, client = Hub(ServingMetrics()), Client()
    hub.publish("0")
    asyncio.run(asyncio.wait_for(hub.serve(cast(WebSocket, client), lambda: None), SECONDS))
    assert (client.got, client.closed_with, hub.clients) == ([], 1013, 0)


def test_a_client_that_takes_no_farewell_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Deaf(Client):
        async def close(self, code: int) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(live, "_SEND_SECONDS", 0.05)
    monkeypatch.setattr(live, "_CLOSE_SECONDS", 0.05)
    hub = Hub(ServingMetrics())
    hub.publish("0")
    asyncio.run(asyncio.wait_for(hub.serve(cast(WebSocket, Deaf()), lambda: None), SECONDS))
    assert hub.clients == 0


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_panels_show_the_rows_of_their_views(serving_endpoint: Any, tmp_path: Path) -> None:
    database = Database(settings_over(serving_endpoint, tmp_path))
    site = {
        "window_start": "time",
        "window_end": "time",
        "views": "long",
        "unique_users": "long",
        "errors": "long",
    }
    per_page = {"page_id": "string", **site}
    rows = [
        {
            "window_start": minute(n),
            "window_end": minute(n + 1),
            "views": 10 + n,
            "unique_users": n,
            "errors": n % 2,
        }
        for n in (-10_000, *range(100), *range(110, 130))
    ]
    database.view("site_traffic_per_minute", site, ("window_start",), rows)
    pages = [
        {**rows[n - 130], "page_id": page, "views": n}
        for n in range(120, 130)
        for page in ("/a", "/b")
    ]
    database.view("page_views_per_minute", per_page, ("window_start", "page_id"), pages)
    odd = {"window_start": "time", "page_id": "string", "views": "long", "severity": "string"}
    marked = [
        {"window_start": minute(n), "page_id": page, "views": 99, "severity": "high"}
        for n, page in [(5, "/a"), (100, "/a"), *((101, f"/{place}") for place in range(200))]
    ]
    database.view("traffic_anomalies", odd, ("window_start", "page_id"), marked)
    with serving(database.settings, tmp_path / "log") as server, join(server) as client:
        data = None
        for _ in range(SECONDS):
            data = picture(client)["sections"]["traffic"]["data"]
            if data is not None:
                break
    database.drop()
    assert data is not None
    points = data["points"]
    # Two hours of them, also where minutes without events have no window.
    shown = [*range(10, 100), *range(110, 130)]
    assert points["start"] == [round(minute(n).timestamp()) for n in shown]
    assert points["views"] == [10 + n for n in shown]
    assert points["users"] == shown
    assert points["errors"] == [n % 2 for n in shown]
    assert data["anomalies"] == [
        {
            "window_start": f"2024-05-01T13:4{n}:00.000Z",
            "page_id": page,
            "views": 99,
            "severity": "high",
            "found": 201,
        }
        for n, page in ((1, "/0"), (0, "/a"))
    ]
    total = sum(range(125, 130))
    assert data["top_pages"] == {
        "from": "2024-05-01T14:05:00.000Z",
        "to": "2024-05-01T14:10:00.000Z",
        "pages": [{"page_id": "/a", "views": total}, {"page_id": "/b", "views": total}],
    }
    assert data["alerts"] is None


def test_accounts_are_of_the_version_that_their_view_shows(
    serving_endpoint: Endpoint, tmp_path: Path
) -> None:
    database = Database(settings_over(serving_endpoint, tmp_path))
    columns = {"source_partition": "string", "window_start": "time", "events": "long"}
    rows = [
        {"source_partition": place, "window_start": minute(0), "events": events}
        for place, events in (("0", 5), ("1", 6), ("1@40@1714564800000", 2))
    ]
    database.view("posts_accounting", columns, ("window_start", "source_partition"), rows, 2)
    for table in (DEAD_LETTERS, LATE_EVENTS):
        database.clickhouse.command(create_raw_table(table))
        database.clickhouse.command(create_raw_view(table))
        database.clickhouse.command(
            f"INSERT INTO {database.settings.database}.{table.table} (stream, version, offset)"
            " VALUES ('posts', 1, 1), ('posts', 2, 2), ('posts', 2, 3), ('words', 1, 4)"
        )
    found = accounts(database.clickhouse, read_catalogue(database.clickhouse))
    database.drop()
    assert found == {"posts": {"version": 2, "aggregated": 11, "late": 4, "dead": 2}}
