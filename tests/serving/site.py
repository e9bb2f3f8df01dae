"""A database of views that a test fills by hand, and a server over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from deploy.settings import Settings
from jobs.catalogue import VIEWS
from sinks.clickhouse import ClickHouse
from sinks.tables import create_table, create_view, table_spec
from tests.endpoint.running import free_port, wait_for

Row = dict[str, Any]

NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_ARROW = {
    "string": pa.string(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("ms", "UTC"),
}


def minute(number: int) -> datetime:
    """Return the instant so many minutes after noon."""
    return NOON + number * MINUTE


@dataclass
class Database:
    """One namespace's database, as the loader would have made it."""

    settings: Settings
    clickhouse: ClickHouse = field(init=False)
    server: Server | None = None
    """Where a new view must be known before a test goes on."""

    def __post_init__(self) -> None:
        self.clickhouse = ClickHouse(self.settings)
        self.clickhouse.create_database()

    def view(
        self,
        name: str,
        columns: Mapping[str, str],
        key: Sequence[str],
        rows: Sequence[Row] = (),
        version: int = 1,
    ) -> None:
        """Create a view of `columns`, by name "long", "string?" (may be missing), …, with rows."""
        doc = VIEWS[name].description if name in VIEWS else f"About {name}."
        fields = [{"name": column, "type": _avro(kind)} for column, kind in columns.items()]
        schema = {"name": name, "key": list(key), "fields": fields, "doc": doc}
        spec = table_spec(name, schema)
        self.clickhouse.command(create_table(spec, version))
        self.clickhouse.command(create_view(spec, version))
        self.add(name, columns, rows, version=version)
        if self.server is not None:
            wait_for(partial(self.server.knows, name))

    def add(
        self,
        name: str,
        columns: Mapping[str, str],
        rows: Sequence[Row],
        *,
        version: int = 1,
        revision: int = 0,
    ) -> None:
        """Add rows to a view, or newer revisions of rows."""
        if not rows:
            return
        data = {
            column: pa.array([row[column] for row in rows], _ARROW[kind.rstrip("?")])
            for column, kind in columns.items()
        }
        count = len(rows)
        data["_revision"] = pa.array([revision] * count, pa.uint64())
        data["_partition"] = pa.array([0] * count, pa.uint32())
        data["_emitted_at"] = pa.array([datetime.now(UTC)] * count, pa.timestamp("ms", "UTC"))
        self.clickhouse.insert(f"{name}_v{version}", pa.table(data))

    def drop(self) -> None:
        """Remove the database."""
        self.clickhouse.drop_database()
        self.clickhouse.close()


def _avro(kind: str) -> Any:
    plain: Any = _TIME if kind.rstrip("?") == "time" else kind.rstrip("?")
    return ["null", plain] if kind.endswith("?") else plain


@dataclass
class Server:
    """The server as a process on a free port."""

    settings: Settings
    log: Path
    process: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=60))

    @property
    def url(self) -> str:
        return self.settings.serving

    @property
    def socket_url(self) -> str:
        return f"ws{self.url.removeprefix('http')}/api/live"

    def start(self) -> None:
        """Start it and wait until it answers."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("KAPPA_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving.server"],
                env=kept | self.settings.environment(),
                stdout=log,
                stderr=log,
            )
        wait_for(self._answers, 240)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(httpx.TransportError):
            return self.get("/healthz").status_code == 200
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it by a signal and return its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Return the answer to a GET, whatever it is."""
        return self.http.get(f"{self.url}{path}", **more)

    def json(self, path: str, **parameters: Any) -> Any:
        """Return the JSON of a good answer."""
        answer = self.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def knows(self, view: str) -> bool:
        """Whether it names `view`; what it knows may be a second old."""
        return view in {one["name"] for one in self.json("/api/views")["views"]}

    def refusal(self, path: str, **parameters: Any) -> tuple[int, str]:
        """Return the status and the sentence of a refusal."""
        answer = self.get(path, params=parameters)
        assert list(answer.json()) == ["error"]
        return answer.status_code, answer.json()["error"]


@contextmanager
def serving(settings: Settings, log: Path, **changed: Any) -> Iterator[Server]:
    """Run a server over what `settings` lead to, on a port of its own."""
    own = settings.model_copy(update={"serving_port": free_port(), **changed})
    server = Server(own, log)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.stop()
