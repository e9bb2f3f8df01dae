"""Services that want TLS and a password, each a process or thread of the test's own."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization as keys

from deploy.java import classpath, jar_folder, java_command
from deploy.kafka import server_properties
from deploy.postgres import binaries, postgres
from deploy.settings import Settings

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Authority:
    """A certificate authority, and a certificate of this host that it signed."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(HOST)
        self.ca_file, self.chain_file = folder / "ca.pem", folder / "server.pem"
        self.key_file = folder / "server.key"
        authority.cert_pem.write_to_path(self.ca_file)
        # Java reads keys as PKCS #8 only.
        key = keys.load_pem_private_key(issued.private_key_pem.bytes(), None)
        form = keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption()
        self.key_file.write_bytes(key.private_bytes(*form))
        self.chain_file.write_bytes(issued.cert_chain_pems[0].bytes())

    def context(self) -> ssl.SSLContext:
        """Return what a server of this host answers TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain_file, self.key_file)
        # What a client of PostgreSQL asks for that begins with TLS; others ask for nothing.
        context.set_alpn_protocols(["postgresql"])
        return context


@contextmanager
def kafka(folder: Path, authority: Authority, user: str, password: str) -> Iterator[str]:
    """Run a broker whose clients must log in over TLS; give its address."""
    port, controller, inside = free_port(), free_port(), free_port()
    pem = folder / "broker.pem"
    pem.write_bytes(authority.key_file.read_bytes() + authority.chain_file.read_bytes())
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    protocols = {"CLIENTS": "SASL_SSL", "INSIDE": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
    properties = server_properties(Settings(_env_file=None), folder) | {
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"CLIENTS://{HOST}:{port},INSIDE://{HOST}:{inside},"
        f"CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"CLIENTS://{HOST}:{port},INSIDE://{HOST}:{inside}",
        "listener.security.protocol.map": ",".join(f"{n}:{p}" for n, p in protocols.items()),
        "inter.broker.listener.name": "INSIDE",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.clients.scram-sha-512.sasl.jaas.config": scram,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pem),
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    account = f'SCRAM-SHA-512=[name="{user}",password="{password}"]'
    format_it = ["format", "-t", "c2VjdXJlLWJyb2tlci10ZQ", "-c", str(file), "--add-scram", account]
    done = subprocess.run(
        _java(folder, "kafka.tools.StorageTool", *format_it), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen(
            _java(folder, "kafka.Kafka", str(file)), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield f"{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _java(folder: Path, *words: str) -> list[str]:
    return java_command(
        words,
        options=["-Xmx512m", "-XX:+UseSerialGC"],
        temporary=folder,
        classpath=classpath([jar_folder("kafka")]),
    )


@contextmanager
def postgresql(folder: Path, password: str) -> Iterator[int]:
    """Run a PostgreSQL that lets users in with a password only; give its port, without TLS."""
    part = postgres(Settings(_env_file=None, home=folder, port_base=free_port() - 432))
    data = folder / "data" / "postgres"
    data.mkdir(parents=True)
    part.prepare()
    port = part.ports[0]
    (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    own = {"user": part.user, "group": part.user, "cwd": data}
    single = [str(binaries() / "postgres"), "--single", "-D", str(data), "postgres"]
    subprocess.run(
        single,
        input=f"ALTER ROLE postgres PASSWORD '{password}'\n".encode(),
        check=True,
        capture_output=True,
        **own,
    )
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(part.command(), stdout=log, stderr=subprocess.STDOUT, **own)
    try:
        yield port
    finally:
        process.send_signal(part.stop_signal)
        process.wait(30)


@contextmanager
def tls_front(authority: Authority, behind: int) -> Iterator[int]:
    """Give a port that speaks TLS and passes each connection on to port `behind`."""
    listener = authority.context().wrap_socket(
        socket.create_server((HOST, 0)), server_side=True, do_handshake_on_connect=False
    )

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_connect, args=(client, behind), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def _connect(client: ssl.SSLSocket, behind: int) -> None:
    try:
        client.do_handshake()
    except OSError:
        client.close()
        return
    server = socket.create_connection((HOST, behind))
    threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
    _pass_on(client, server)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while some := source.recv(65_536):
            target.sendall(some)
    except OSError:
        pass
    finally:
        for end in (source, target):
            end.close()


@dataclass
class Schemas:
    """What a registry knows; ids count up from one."""

    user: str
    password: str
    known: list[str] = field(default_factory=list)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    refused: int = 0

    def allowed(self, header: str) -> bool:
        wanted = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return header == f"Basic {wanted}"

    def answer(self, method: str, path: list[str], body: Any) -> tuple[int, Any]:
        match method, path:
            case "GET", ["schemas", "ids", number]:
                return 200, {"schema": self.known[int(number) - 1]}
            case "GET", ["config", _]:
                return 404, {"error_code": 40408, "message": "no level"}
            case "PUT", ["config", _]:
                return 200, body
            case "POST", ["subjects", subject]:
                number = self._number(body)
                if number not in self.subjects.get(subject, ()):
                    return 404, {"error_code": 40403, "message": "no such schema"}
                return 200, {"subject": subject, "id": number, "version": 1, **body}
            case "POST", ["subjects", subject, "versions"]:
                number = self._number(body)
                self.subjects.setdefault(subject, []).append(number)
                return 200, {"id": number}
        return 404, {"error_code": 404, "message": f"{method} {path} is not known here"}

    def _number(self, body: Any) -> int:
        schema = json.dumps(json.loads(body["schema"]), sort_keys=True)
        kept = [json.dumps(json.loads(text), sort_keys=True) for text in self.known]
        if schema not in kept:
            self.known.append(body["schema"])
            return len(self.known)
        return kept.index(schema) + 1


@contextmanager
def registry(authority: Authority, schemas: Schemas) -> Iterator[str]:
    """Run a schema registry over TLS that asks for a user; give its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            path = self.path.partition("?")[0].strip("/").split("/")
            if schemas.allowed(self.headers.get("Authorization", "")):
                status, document = schemas.answer(self.command, path, body)
            else:
                schemas.refused += 1
                status, document = 401, {"error_code": 401, "message": "who are you?"}
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing of each request."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.socket = authority.context().wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
