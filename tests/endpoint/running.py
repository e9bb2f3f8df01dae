"""An endpoint of a test's own: a process on a free port with a folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

OWNER, OWNER_PASSWORD = "kappa", "own:er'1"
READER, READER_PASSWORD = "reader", "rea\\der 2"
_START_SECONDS = 60.0


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return when `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        time.sleep(0.05)


@dataclass
class Endpoint:
    """The process, and requests to it by httpx as the owner unless told otherwise."""

    home: Path
    port: int = field(default_factory=free_port)
    limits: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=90, trust_env=False))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / "endpoint.log"

    @property
    def access(self) -> dict[str, Any]:
        """The settings with which owner and reader reach it."""
        return {
            "clickhouse_port": self.port,
            "clickhouse_user": OWNER,
            "clickhouse_password": SecretStr(OWNER_PASSWORD),
            "clickhouse_reader": READER,
            "clickhouse_reader_password": SecretStr(READER_PASSWORD),
        }

    def environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("KAPPA_")}
        return (
            kept
            | self.limits
            | {
                "KAPPA_HOME": str(self.home),
                "KAPPA_CLICKHOUSE_PORT": str(self.port),
                "KAPPA_CLICKHOUSE_USER": OWNER,
                "KAPPA_CLICKHOUSE_PASSWORD": OWNER_PASSWORD,
                "KAPPA_CLICKHOUSE_READER": READER,
                "KAPPA_CLICKHOUSE_READER_PASSWORD": READER_PASSWORD,
            }
        )

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.clickhouse_endpoint"],
                env=self.environment(),
                stdout=log,
                stderr=log,
            )
        wait_for(self._ready, _START_SECONDS)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(httpx.TransportError):
            return self.http.get(f"{self.url}/ping").text == "Ok.\n"
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process by a signal and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=90)
        self.process = None
        self.http.close()
        self.http = httpx.Client(timeout=90, trust_env=False)
        return code

    def query(self, sql: str | bytes, *, reader: bool = False, **parameters: Any) -> httpx.Response:
        """Post `sql` and return the answer, whatever it is."""
        auth = (READER, READER_PASSWORD) if reader else (OWNER, OWNER_PASSWORD)
        return self.http.post(self.url, content=sql, params=parameters, auth=auth)

    def text(self, sql: str | bytes, *, reader: bool = False, **parameters: Any) -> str:
        """Post `sql` and return the answer's text; fail when it is an error."""
        answer = self.query(sql, reader=reader, **parameters)
        assert answer.status_code == 200, answer.text
        return answer.text
