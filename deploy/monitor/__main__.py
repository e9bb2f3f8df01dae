"""Run the monitor: look every few seconds, and serve what was found to Prometheus."""

from __future__ import annotations

import logging
import sys
import threading

from prometheus_client import CollectorRegistry

from deploy.monitor.looking import Findings, Lookout
from deploy.monitor.metrics import FindingsCollector
from deploy.services import MONITOR_METRICS_PORT
from deploy.settings import Settings
from sinks.loader import stop_signal
from sinks.metrics import Health, NotServed, serve

_EVERY_SECONDS = 5.0


def main() -> int:
    """Look until told to stop."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    # A line for each request, every few seconds, would drown what matters.
    for chatty in ("httpx", "kafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = Settings()
    found = Findings()
    registry, health = CollectorRegistry(), Health(name="the monitor")
    registry.register(FindingsCollector(lambda: found))
    log = logging.getLogger("kappa.monitor")
    try:
        serve(registry, health, settings.metrics_host, settings.port(MONITOR_METRICS_PORT))
    except NotServed as error:
        log.critical("the monitor stops: %s", error)
        return 1
    lookout, stop, pause = Lookout(settings), stop_signal(), threading.Event()
    while not stop():
        try:
            found = lookout.look()
        except Exception:
            # Without a monitor nobody is told of anything; figures that are missing are told of.
            log.exception("this look failed")
            found = Findings(lost_known=False)
        health.beat()
        # A signal ends the wait early only on the main thread: this is it.
        pause.wait(_EVERY_SECONDS)
    lookout.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
