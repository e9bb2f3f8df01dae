"""Start the embedded ClickHouse endpoint: `python -m deploy.clickhouse_endpoint`."""

from __future__ import annotations

import signal
import threading

from cheroot import wsgi

from deploy.clickhouse_endpoint.access import User, Users
from deploy.clickhouse_endpoint.app import Application
from deploy.clickhouse_endpoint.engine import Engine
from deploy.settings import Settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; running queries are finished first."""
    settings = Settings()
    root = settings.home.resolve() / "data" / "clickhouse"
    scratch = root / "incoming"
    scratch.mkdir(parents=True, exist_ok=True)
    engine = Engine(root / "engine")
    version = engine.open(settings.clickhouse_database)
    users = (
        User(settings.clickhouse_user, settings.clickhouse_password.get_secret_value(), False),
        User(
            settings.clickhouse_reader,
            settings.clickhouse_reader_password.get_secret_value(),
            True,
        ),
    )
    application = Application(
        engine,
        Users({user.name: user for user in users}),
        settings.clickhouse_database,
        version,
        scratch,
    )
    server = wsgi.Server(
        ("127.0.0.1", settings.clickhouse_http_port), application, numthreads=32, timeout=30
    )
    server.prepare()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve, daemon=True).start()
    print(f"ClickHouse {version} on 127.0.0.1:{settings.clickhouse_http_port}", flush=True)
    stop.wait()
    server.stop()
    engine.close()


if __name__ == "__main__":
    main()
