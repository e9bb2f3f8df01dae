"""Registry and ClickHouse as the monitor asks them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from deploy.monitor.asking import Asking
from deploy.settings import Settings
from tests.security.servers import free_port


class _Registry(BaseHTTPRequestHandler):
    status = 404

    def do_GET(self) -> None:
        body = json.dumps({"error_code": 40401, "message": "Subject not found."}).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that has no subject yet, by its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def answers(registry: str) -> dict[str, bool]:
    asking = Asking(Settings(_env_file=None, registry_url=registry, clickhouse_port=free_port()))
    try:
        return asking.answers()
    finally:
        asking.close()


def test_a_registry_without_the_subject_answers(registry: str) -> None:
    assert answers(registry) == {"registry": True, "clickhouse": False}


def test_a_registry_that_fails_does_not(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Registry, "status", 503)
    assert answers(registry) == {"registry": False, "clickhouse": False}


def test_one_that_is_nowhere_does_not() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert answers(address) == {"registry": False, "clickhouse": False}
