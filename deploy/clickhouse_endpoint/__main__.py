"""Start the embedded ClickHouse endpoint: `python -m deploy.clickhouse_endpoint`."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

# Before the engine loads: a DateTime without a zone is UTC on every machine.
os.environ["TZ"] = "UTC"

from deploy.clickhouse_endpoint.access import User, Users
from deploy.clickhouse_endpoint.app import Application
from deploy.clickhouse_endpoint.engine import Engine
from deploy.clickhouse_endpoint.errors import QueryError
from deploy.clickhouse_endpoint.limits import Limits
from deploy.clickhouse_endpoint.metrics import Metrics
from deploy.clickhouse_endpoint.queries import Queries
from deploy.clickhouse_endpoint.server import make_server
from deploy.console import CommandError, fail
from deploy.hosts import Names
from deploy.settings import Settings


def serve(settings: Settings, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT; running queries have a while to finish then."""
    root = settings.home.resolve() / "data" / "clickhouse"
    root.mkdir(parents=True, exist_ok=True)
    lock = _only_process(root)
    scratch = _empty_folder(root / "incoming")
    engine = Engine(root / "engine")
    try:
        about = engine.open(settings.clickhouse_database)
    except QueryError as error:
        raise CommandError(f"ClickHouse data in {root} can't be opened: {error}") from error
    metrics = Metrics()
    queries = Queries(engine, about, scratch, limits, metrics)
    names = Names(settings.clickhouse_names.split(","))
    application = Application(
        queries, about, _users(settings), metrics, limits.max_body_bytes, names
    )
    server = make_server(application, settings.clickhouse_http_port, limits)
    try:
        server.prepare()
    except OSError as error:
        engine.close()
        raise CommandError(
            f"Port {settings.clickhouse_http_port} can't be used: {error}. "
            "End what holds it, or choose other ports with KAPPA_PORT_BASE=…"
        ) from error
    logging.info("ClickHouse %s on 127.0.0.1:%d", about.version, settings.clickhouse_http_port)
    _serve_until_told(server)
    logging.info("stopping")
    patience = threading.Timer(limits.stop_seconds, queries.cancel_reads)
    patience.start()
    server.stop()
    patience.cancel()
    queries.close()
    engine.close()
    lock.close()
    logging.info("stopped")


def _serve_until_told(server: Any) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve, name="accept", daemon=True).start()
    stop.wait()


def _users(settings: Settings) -> Users:
    owner = settings.clickhouse_password.get_secret_value()
    reader = settings.clickhouse_reader_password.get_secret_value()
    return Users(
        [
            User(settings.clickhouse_reader, reader, reader=True),
            User(settings.clickhouse_user, owner, reader=False),
        ]
    )


def _only_process(root: Path) -> IO[str]:
    """Return the lock on `root` that ends with the process; chDB itself takes none."""
    lock = (root / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CommandError(
            f"Another endpoint holds the ClickHouse data in {root}; stop it, or set KAPPA_HOME."
        ) from None
    return lock


def _empty_folder(folder: Path) -> Path:
    """Return `folder` without the rows that a killed process left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Run the endpoint; a failure the user can act on ends as one sentence and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(Settings(), Limits())
    except CommandError as error:
        fail(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
