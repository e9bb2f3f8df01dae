"""What stands before every request: names, origins, sizes, time, and the headers of answers."""

from __future__ import annotations

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from deploy.hosts import Names
from serving import patience
from serving.patience import REQUEST_SECONDS, PatientProtocol
from tests.endpoint.running import Endpoint, wait_for
from tests.serving.conftest import settings_over
from tests.serving.site import Server, serving

SECONDS = 60


def talk(server: Server, *parts: bytes) -> bytes:
    """Send `parts` and return all that comes until the server closes."""
    host, port = server.settings.serving_host, server.settings.serving_http_port
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize("path", ["/", "/api/views", "/static/main.js", "/none", "/healthz"])
def test_every_answer_has_a_strict_policy(server: Server, path: str) -> None:
    headers = server.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "font-src": "'self'",
        "connect-src": "'self'",
        "manifest-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_the_docs_may_draw_icons_and_run_no_inline_script(server: Server) -> None:
    answer = server.get("/docs")
    assert "img-src 'self' data:" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "<script>" not in answer.text


def test_another_name_than_its_own_is_refused(server: Server) -> None:
    answer = server.get("/api/views", headers={"host": "evil.example:18300"})
    assert answer.status_code == 421
    assert answer.json() == {
        "error": "This server has another name; add it to KAPPA_SERVING_NAMES."
    }
    assert server.get("/healthz", headers={"host": "10.1.2.3:18300"}).status_code == 200
    assert server.get("/", headers={"host": "["}).status_code == 421


@pytest.mark.parametrize(
    ("names", "host", "known"),
    [
        ((), "localhost:18300", True),
        ((), "[::1]:18300", True),
        ((), "127.9.9.9", True),
        ((), "127.0.0.1.evil.example", False),
        ((), "", False),
        ((), "[", False),
        ((), "[::1", False),
        ((), "[x]", False),
        (("views.example",), "Views.Example:443", True),
        (("views.example",), "notviews.example", False),
        (("*",), "anything", True),
    ],
)
def test_names(names: tuple[str, ...], host: str, known: bool) -> None:
    assert Names(names).known(host) is known


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        (None, True),
        ("http://127.0.0.1:18300", True),
        ("https://127.0.0.1:18300", True),
        ("http://127.0.0.1:9999", False),
        ("http://evil.example", False),
        ("null", False),
        ("http://[", False),
        ("", False),
    ],
)
def test_origins(origin: str | None, same: bool) -> None:
    assert Names(()).same_origin(origin, "127.0.0.1:18300") is same


def test_a_body_is_refused_at_once(server: Server) -> None:
    answer = httpx.post(f"{server.url}/api/views", content=b"x" * 10, trust_env=False)
    assert answer.status_code == 413
    assert answer.json() == {"error": "A request has no body here; everything is asked with GET."}


def test_another_method_is_refused(server: Server) -> None:
    answer = httpx.delete(f"{server.url}/api/views", trust_env=False)
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed."})


def test_an_endless_address_is_refused(server: Server) -> None:
    answer = server.get("/api/views/" + "x" * 20_000)
    assert answer.status_code == 414


def test_a_request_that_never_ends_is_cut_off(server: Server) -> None:
    def cut_off(begun: bytes) -> tuple[bytes, bool]:
        began = time.monotonic()
        answer = talk(server, begun)
        return answer, REQUEST_SECONDS - 1 < time.monotonic() - began < SECONDS

    begun = [b"", b"GET /api/views HT", b"GET / HTTP/1.1\r\nhost: x\r\n"]
    with ThreadPoolExecutor(len(begun)) as together:
        assert list(together.map(cut_off, begun)) == [(b"", True)] * len(begun)


async def much(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with more than the system keeps for a client."""
    await Response(bytes(20_000_000))(scope, receive, send)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux ends connections so")
def test_a_connection_whose_answer_is_never_read_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "UNREAD_SECONDS", 0.3)

    async def scene() -> None:
        config = uvicorn.Config(much, log_config=None, lifespan="off")
        config.load()
        state = ServerState()
        lost = asyncio.Event()

        class Watched(PatientProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Watched(config, state, {}), "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            await loop.run_in_executor(None, client.sendall, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            await asyncio.wait_for(lost.wait(), SECONDS)
        server.close()
        assert state.connections == set()

    asyncio.run(scene())


def test_metrics_count_requests_by_route(server: Server) -> None:
    server.get("/api/views/none")
    text = server.get("/metrics").text
    assert 'kappa_serving_requests_total{route="/api/views/{view}",status="404"}' in text
    assert "kappa_serving_live_clients " in text
    assert "none_such" not in text


def test_it_is_ready_once_clickhouse_answers(server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while server.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, server.get("/readyz").text
    assert server.json("/readyz") == {"status": "ok"}


def test_it_is_ready_while_there_is_no_database_yet(
    serving_endpoint: Endpoint, tmp_path: Path
) -> None:
    with serving(settings_over(serving_endpoint, tmp_path), tmp_path / "log") as server:
        wait_for(lambda: server.get("/readyz").status_code == 200)
