"""How long an event takes from being produced to being counted on the dashboard's screen.

python -m bench.event_to_pixel --per-second 100 --seconds 60
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Thread
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from playwright.sync_api import Page, sync_playwright

from bench.latency import Latency, Marks, latencies, own_namespace
from bench.workload import Workload, fill_live
from deploy.console import CommandError, print_json, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings
from jobs.catalogue import job_named
from schemas.registry import Registry

_DEADLINE_SECONDS = 180.0
_COUNT = "#jobs-rows tr td:nth-child(6)"
# Notes the clock and the count in the frame after the one that shows a new count.
_WATCH = """selector => {
  window.marks = [];
  let last = '';
  const note = () => {
    const text = document.querySelector(selector)?.textContent ?? '';
    if (text === last) return;
    last = text;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      window.marks.push([Date.now() / 1000, Number(text.replaceAll(',', '')) || 0]);
    }));
  };
  new MutationObserver(note).observe(document.getElementById('jobs-rows'),
    { subtree: true, childList: true, characterData: true });
}"""


def measure(settings: Settings, per_second: float, seconds: float) -> Latency:
    """Send events at their own pace and watch the number of them on the page."""
    warm, events = round(10 * per_second), round(seconds * per_second)
    with own_namespace(settings) as (there, registry), _dashboard(there) as page:
        _send(there, registry, per_second, warm, seed=1)
        _await(page, warm)
        page.evaluate("window.marks = []")
        sending, sent = _in_background(lambda: _send(there, registry, per_second, events, seed=2))
        seen = _await(page, warm + events)
        sending.join(_DEADLINE_SECONDS)
    shown = [(at, count - warm) for at, count in seen]
    found = latencies(sent(), shown)
    p50, p99, most = np.percentile(found, (50, 99, 100)).round(2).tolist()
    return Latency(per_second, "dashboard", events, p50, p99, most)


def _send(
    settings: Settings, registry: Registry, per_second: float, events: int, seed: int
) -> Marks:
    stream = job_named("page_views").within(settings.namespace).stream
    sent: Marks = []
    workload = Workload(
        events=events,
        per_second=per_second,
        seed=seed,
        start_ms=round(time.time() * 1000) - 8_000,
    )
    fill_live(
        settings.kafka_client,
        registry,
        stream,
        workload,
        lambda count: sent.append((time.time(), count)),
    )
    return sent


def _in_background(work: Callable[[], Marks]) -> tuple[Thread, Callable[[], Marks]]:
    found: list[Marks] = []
    thread = Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, lambda: found[0]


def _await(page: Page, count: int) -> Marks:
    """Return when the page showed how many events, once it shows `count` of them."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        marks: list[list[Any]] = page.evaluate("window.marks")
        if marks and marks[-1][1] >= count:
            return [(float(at), int(number)) for at, number in marks]
        if time.monotonic() > deadline:
            raise CommandError(f"The page shows {marks[-1:]} and not {count:,} events.")
        page.wait_for_timeout(200)


@contextmanager
def _dashboard(settings: Settings) -> Iterator[Page]:
    """Serve the namespace's dashboard and open it in Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise CommandError(
            "Chromium is not on the PATH: apt-get install chromium, or put it there."
        )
    own = settings.model_copy(update={"serving_port": settings.port(301)})
    server = subprocess.Popen(
        [sys.executable, "-m", "serving.server"],
        cwd=PROJECT_ROOT,
        env=os.environ | own.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_server(own.serving)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(own.serving)
            page.evaluate(_WATCH, _COUNT)
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait(30)


def _await_server(address: str) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        try:
            httpx.get(f"{address}/healthz", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise CommandError(f"No dashboard answers at {address}.") from error
        time.sleep(0.2)


def main(
    per_second: Annotated[float, typer.Option(min=1, help="Events per second.")] = 100,
    seconds: Annotated[float, typer.Option(min=1)] = 60,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first), in Debian's Chromium.

    Example: python -m bench.event_to_pixel --per-second 100
    """
    found = measure(Settings(), per_second, seconds)
    if as_json:
        print_json(asdict(found))
        return
    columns = ("events/s", "until it is in", "events", "p50, s", "p99, s", "greatest, s")
    print_table("Produced to seen on the page", columns, [tuple(asdict(found).values())])


if __name__ == "__main__":
    run_alone(main)
