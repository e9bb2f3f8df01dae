"""How long an event takes from when it is due to being counted on the dashboard's screen.

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
import typer
from playwright.sync_api import Page, sync_playwright

from bench.latency import Latency, Marks, Sent, latencies, report, running_job, send
from deploy.console import CommandError, print_json, run_alone
from deploy.settings import PROJECT_ROOT, Settings

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
    with running_job(settings) as (there, registry), _dashboard(there) as page:
        send(there, registry, per_second, warm, seed=1)
        _await(page, warm)
        page.evaluate("window.marks = []")
        sending, sent = _in_background(lambda: send(there, registry, per_second, events, seed=2))
        seen = _await(page, warm + events)
        sending.join(_DEADLINE_SECONDS)
    # The page has a clock of its own.
    behind = time.time() - time.monotonic()
    shown = [(at - behind, count - warm) for at, count in seen]
    found = latencies(sent(), shown)
    return Latency.of(sent(), there.checkpoint_seconds, "dashboard", found)


def _in_background(work: Callable[[], Sent]) -> tuple[Thread, Callable[[], Sent]]:
    found: list[Sent] = []
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
    report("Due to seen on the page", [found])


if __name__ == "__main__":
    run_alone(main)
