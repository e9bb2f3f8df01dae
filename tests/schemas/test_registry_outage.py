"""A registry that fails or is away: what is repeated, what is not, and for how long."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schemas.registry import Registry, RegistryError, RegistryUnavailable, UnknownSchemaId

ABSENT = (404, {"error_code": 40403, "message": "Schema 7 not found."})
FOUND = (200, {"schema": '{"type": "string"}'})


class Script(ThreadingHTTPServer):
    """A server that gives the scripted answers in turn, the last one for ever."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/api"


class _Handler(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        script = self.server
        script.requests.append((self.path, self.headers["Authorization"]))
        status, document = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(*answers: tuple[int, object]) -> Iterator[Script]:
    with Script(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_server_errors_are_repeated_until_an_answer_comes() -> None:
    with serving((503, {}), (500, {}), FOUND) as server, Registry(server.url) as registry:
        assert registry.schema_by_id(7) == {"type": "string"}
    assert len(server.requests) == 3


def test_schema_is_asked_for_once() -> None:
    with serving(FOUND) as server, Registry(server.url) as registry:
        assert registry.schema_by_id(7) is registry.schema_by_id(7)
    assert server.requests == [("/api/schemas/ids/7", None)]


def test_unknown_id_is_not_repeated_and_not_remembered() -> None:
    with serving(ABSENT, FOUND) as server, Registry(server.url) as registry:
        with pytest.raises(UnknownSchemaId):
            registry.schema_by_id(7)
        assert len(server.requests) == 1
        assert registry.schema_by_id(7) == {"type": "string"}


def test_failing_server_is_unavailable_after_the_callers_bound() -> None:
    with (
        serving((503, {"message": "starting"})) as server,
        Registry(server.url, retry_for=0.3) as registry,
        pytest.raises(RegistryUnavailable, match="fails with 503: starting"),
    ):
        registry.schema_by_id(7)
    assert len(server.requests) > 1


def test_refused_connection_is_unavailable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        address = f"http://127.0.0.1:{port}/api"
        with (
            Registry(address, retry_for=0.0) as registry,
            pytest.raises(RegistryUnavailable, match=f"{address} does not answer"),
        ):
            registry.schema_by_id(7)


def test_silence_is_unavailable_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
        with (
            Registry(address, timeout=0.1, retry_for=0.0) as registry,
            pytest.raises(RegistryUnavailable, match="does not answer"),
        ):
            registry.schema_by_id(7)


def test_password_goes_into_the_header_and_never_into_messages() -> None:
    with serving((401, {"message": "no"})) as server:
        with_password = server.url.replace("http://", "http://kim:s%40cret@")
        with (
            Registry(with_password) as registry,
            pytest.raises(
                RegistryError, match="check KAPPA_REGISTRY_USER and KAPPA_REGISTRY_PASSWORD"
            ) as caught,
        ):
            registry.schema_by_id(7)
    token = base64.b64encode(b"kim:s@cret").decode()
    assert server.requests == [("/api/schemas/ids/7", f"Basic {token}")]
    assert "s@cret" not in str(caught.value)
    assert "s%40cret" not in str(caught.value)


def test_address_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(RegistryError, match="KAPPA_REGISTRY_URL is such as") as caught:
        Registry("http://kim:s/cret@registry:8081")
    assert "s/cret" not in str(caught.value)
    assert "'s'" not in str(caught.value)


def test_schema_of_another_kind_is_unknown() -> None:
    other = (200, {"schema": "syntax", "schemaType": "PROTOBUF"})
    with (
        serving(other) as server,
        Registry(server.url) as registry,
        pytest.raises(UnknownSchemaId, match="schema id 7 is PROTOBUF and no Avro"),
    ):
        registry.schema_by_id(7)


def test_version_of_another_kind_is_refused() -> None:
    other = (200, {"version": 3, "id": 7, "schema": "syntax", "schemaType": "PROTOBUF"})
    with (
        serving(other) as server,
        Registry(server.url) as registry,
        pytest.raises(RegistryError, match="version 3 of words-value is PROTOBUF and no Avro;"),
    ):
        registry.latest("words-value")
