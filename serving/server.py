"""The process behind API and dashboard: `python -m serving.server`, or `kappa serve`."""

from __future__ import annotations

import logging

import uvicorn

from deploy.settings import Settings
from serving.app import create_app
from serving.patience import PatientProtocol

_LOG = logging.getLogger("kappa.serving")


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # One line for each request or live client would drown what matters.
    for chatty in ("httpx", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    _LOG.info("serving %s", settings.serving)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.serving_host,
        port=settings.serving_http_port,
        http=PatientProtocol,
        ws="websockets-sansio",
        ws_max_size=4096,
        # Compressing the same picture for each of many clients costs more than it saves.
        ws_per_message_deflate=False,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
        log_config=None,
    )
    uvicorn.Server(config).run()


def main() -> None:
    """Serve what the environment's settings lead to."""
    run(Settings())


if __name__ == "__main__":
    main()
