"""The dashboard over the whole stack: events flow, jobs run, replays move; pictures of it."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from bench.workload import Workload, fill, fill_live
from deploy.stack import Stack
from replay.control import Control
from replay.differences import Expectation
from replay.records import ReplayPlan, ReplayState, VersionState
from schemas.registry import Registry
from tests.harness import Environment, environment, register, start, wait_for
from tests.serving.site import Database, Server, serving
from tests.serving.test_page import ALERTS, MARKS, STATS

MILLISECONDS = 180_000
HISTORY_MINUTES, SPIKE_MINUTE = 120, 80
LIVE_PER_SECOND = 4
# The README's pictures are of a plain name and of a rate that shows nothing but live events.
FOR_README = "KAPPA_SCREENSHOTS" in os.environ
NAMED = {"namespace": "website"} if FOR_README else {}
CALM_SECONDS = 1200
UNDER_FIVE_SECONDS = re.compile(r"^[0-4]\.[0-9] s$")


@pytest.fixture(scope="module")
def running(stack: Stack) -> Iterator[Environment]:
    with environment(stack, **NAMED) as made:
        register(made, made.stream.schema)
        start(made)
        yield made


@pytest.fixture(scope="module")
def dashboard(running: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("dashboard") / "serving.log"
    with serving(running.settings, log) as server:
        yield server


@dataclass(frozen=True)
class History:
    """What was sent before: how many events, and when the minute with the most of them began."""

    events: int
    spike: datetime


@pytest.fixture(scope="module")
def history(running: Environment) -> History:
    """Two hours of events up to now, in waves, with a minute of many."""
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    since = [end - timedelta(minutes=HISTORY_MINUTES - n) for n in range(0, HISTORY_MINUTES, 5)]
    spans = [(begin, 5, 2.4 + math.sin(n / 3)) for n, begin in enumerate(since)]
    place = SPIKE_MINUTE // 5
    spans[place : place + 1] = [(since[place], 1, 9.0), (since[place] + timedelta(minutes=1), 4, 2)]
    with Registry(running.settings.registry) as registry:
        counts = [
            fill(running.settings.kafka_client, registry, running.stream, _span(seed, *span)).events
            for seed, span in enumerate(spans)
        ]
    return History(sum(counts), since[place])


def _span(seed: int, begin: datetime, minutes: int, per_second: float) -> Workload:
    return Workload(
        events=round(60 * minutes * per_second),
        pages=60,
        users=90,
        per_second=per_second,
        skew=1.1,
        seed=seed,
        # An event happens up to the disorder before its place.
        start_ms=round(begin.timestamp() * 1000),
    )


@pytest.fixture
def trickle(running: Environment) -> Iterator[float]:
    """Events that go on coming during a test; gives when they began, in epoch seconds."""
    stop = threading.Event()

    class Stopped(Exception):
        pass

    def report(_: int) -> None:
        if stop.is_set():
            raise Stopped

    def send() -> None:
        now = Workload(
            events=100_000,
            pages=60,
            users=90,
            per_second=LIVE_PER_SECOND,
            skew=1.1,
            seed=99,
            start_ms=round((time.time() - 8) * 1000),
        )
        with Registry(running.settings.registry) as registry, suppress(Stopped):
            fill_live(running.settings.kafka_client, registry, running.stream, now, report)

    thread = threading.Thread(target=send, daemon=True)
    began = time.time()
    thread.start()
    yield began
    stop.set()
    thread.join(60)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(
        color_scheme="light", viewport={"width": 1360, "height": 900}, reduced_motion="reduce"
    )
    opened = context.new_page()
    opened.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    yield opened
    context.close()


def cell(page: Page, heading: str) -> Any:
    """Return the cell under `heading` of the first job."""
    return page.locator(f'#jobs-rows tr:first-child [data-label="{heading}"]')


def test_the_stack_serves_its_dashboard(stack: Stack) -> None:
    state = next(part for part in stack.status() if part.name == "serving")
    assert (state.state, state.port) == ("healthy", stack.settings.port_base + 300)


def test_it_counts_every_event_and_shows_job_and_views(
    running: Environment, dashboard: Server, history: History, page: Page
) -> None:
    page.goto(dashboard.url)
    expect(cell(page, "Aggregated")).to_have_text(f"{history.events:,}")
    expect(cell(page, "In flight")).to_have_text("0")
    expect(cell(page, "State")).to_have_text("running")
    expect(cell(page, "Behind")).to_have_text("0")
    expect(cell(page, "Last checkpoint")).to_contain_text(" s ago")
    expect(cell(page, "Job").locator(".name")).to_have_text(
        f"{running.settings.namespace}.page_views"
    )
    expect(page.locator("#tile-rate .note")).to_have_text(f"{history.events:,} in all")
    expect(page.locator("#tile-apart .note")).to_have_text("0 late, 0 dead")
    expect(page.locator("#tile-fresh .note")).to_have_text("ago, every event is in the views")
    row = page.locator("#views-rows tr", has_text="site_traffic_per_minute")
    expect(row.locator('[data-label="Version"] .badge')).to_have_text("v1")
    expect(row.locator('[data-label="To load"]')).to_have_text("0")
    expect(row.locator('[data-label="Newest row"]')).to_contain_text(" ago")


def test_new_events_reach_the_page_which_tells_how_long_they_took(
    running: Environment, dashboard: Server, history: History, page: Page
) -> None:
    page.goto(dashboard.url)
    expect(cell(page, "Aggregated")).to_have_text(f"{history.events:,}")
    with Registry(running.settings.registry) as registry:
        more = Workload(events=20, per_second=20, seed=9, start_ms=round((time.time() - 8) * 1000))
        fill(running.settings.kafka_client, registry, running.stream, more)
    expect(cell(page, "Aggregated")).to_have_text(f"{history.events + 20:,}")
    expect(page.locator("#tile-pixel .note")).to_contain_text("median of a minute, longest")
    expect(page.locator("#tile-pixel .value")).to_contain_text(" s")


def test_pictures_of_it(
    running: Environment,
    dashboard: Server,
    history: History,
    trickle: float,
    page: Page,
    pictures: Path,
) -> None:
    """Also writes the README's pictures of the dashboard, on a calm machine."""
    # A page is looked up once, and the server's list of views may be a second old.
    _fill_other_views(Database(running.settings, server=dashboard), history)
    _promote_fraud_alerts(running)
    page.goto(dashboard.url)
    if FOR_README:
        wait_for(
            lambda: dashboard.json("/api/snapshot")["sections"]["events"]["data"],
            CALM_SECONDS,
            "the rate's history begins with the live events",
            until=lambda streams: all(one["history"][0][0] > trickle for one in streams.values()),
        )
    expect(page.locator("#replays-list article")).to_have_count(1)
    expect(page.locator("#replays-list .badge")).to_have_text("promoted")
    row = page.locator("#views-rows tr", has_text="fraud_alerts")
    expect(row.locator('[data-label="Version"] .badge')).to_have_text("v2")
    expect(page.locator("#fraud-list li")).to_have_count(4)
    expect(page.locator("#traffic-note")).to_contain_text("1 anomaly in this time")
    page.locator("#top-list button").first.click()
    expect(page.locator("#lookup-answer dd").first).to_be_visible()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    _picture(page, pictures / "dashboard-light.png")
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    expect(page.locator("#traffic-chart canvas")).to_be_visible()
    _picture(page, pictures / "dashboard-dark.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.querySelector('#traffic-chart canvas').clientWidth < 390")
    _picture(page, pictures / "dashboard-phone.png")


def _picture(page: Page, path: Path) -> None:
    """Take a picture of the whole page; for the README at a moment that is as good as is said."""
    if FOR_README:
        expect(page.locator("#tile-pixel .value")).to_have_text(
            UNDER_FIVE_SECONDS, timeout=1000 * CALM_SECONDS
        )
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 20_000


def _promote_fraud_alerts(running: Environment) -> None:
    plan = replace(
        _plan(48_000),
        job="transactions",
        views=("fraud_alerts",),
        from_versions={"fraud_alerts": 1},
        begin={"transactions": {0: 0}},
        pinned={"transactions": {0: 48_000}},
    )
    with Control(running.settings.postgres, running.settings.namespace, "test") as control:
        replay = control.begin(plan)
        for step in ("submit", "read", "load", "verify", "promote"):
            control.write(replay.id, step, "done", {})
        states = {("fraud_alerts", 2): VersionState.LIVE, ("fraud_alerts", 1): VersionState.STANDBY}
        control.change(replay, ReplayState.PROMOTED, states)


def _fill_other_views(database: Database, history: History) -> None:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    spike = {"window_start": history.spike, "page_id": "/", "views": 540, "baseline": 140.0}
    database.view("traffic_anomalies", MARKS, ("window_start", "page_id"), [spike])
    alerts = [
        ("t-81204", "user-512", 421_000, 0.9, "amount, distance"),
        ("t-81177", "user-98", 8_990, 1.2, "amount, distance, frequency"),
        ("t-81020", "user-1733", 129_050, 0.9, "amount, distance"),
        ("t-80954", "user-44", 64_000, 0.9, "amount, distance"),
    ]
    rows = [
        dict(
            zip(
                ("transaction_id", "user_id", "amount_cents", "score", "reasons"),
                alert,
                strict=True,
            )
        )
        | {"event_time": end - timedelta(minutes=7 * place)}
        for place, alert in enumerate(alerts)
    ]
    database.view("fraud_alerts", ALERTS, ("transaction_id",), rows, version=2)
    of_pages = (
        "SELECT page_id, sum(views), max(unique_users), max(window_end)"
        " FROM page_views_per_minute GROUP BY page_id"
    )
    pages = wait_for(
        lambda: database.clickhouse.query(of_pages).rows,
        MILLISECONDS / 1000,
        "the pages' views are loaded",
        until=lambda found: sum(views for _, views, *_ in found) >= history.events,
    )
    stats = [dict(zip(STATS, row, strict=True)) for row in pages]
    database.view("page_stats", STATS, ("page_id",), stats)
    database.clickhouse.close()


def test_a_replay_is_shown_from_its_building_to_its_promotion_and_back(
    running: Environment, dashboard: Server, history: History, page: Page
) -> None:
    page.goto(dashboard.url)
    card = page.locator("#replays-list article").first
    with Control(running.settings.postgres, running.settings.namespace, "test") as control:
        replay = control.begin(_plan(history.events))
        control.write(replay.id, "submit", "done", {})
        expect(card.locator(".badge")).to_have_text("building")
        expect(card).to_contain_text(f"0 of {history.events:,} events read, 0 %")
        expect(card).to_contain_text("submit done")
        expect(card.locator("progress")).to_be_visible()
        view = "site_traffic_per_minute"
        live = {(view, 2): VersionState.LIVE, (view, 1): VersionState.STANDBY}
        replay = control.change(replay, ReplayState.PROMOTED, live)
        expect(card.locator(".badge")).to_have_text("promoted")
        expect(card).to_contain_text(f"{view} v1 standby · {view} v2 live")
        expect(card).to_contain_text("kappa replay rollback")
        expect(card.locator("progress")).to_be_hidden()
        replay = control.change(replay, ReplayState.ROLLED_BACK, {})
        expect(card.locator(".badge")).to_have_text("rolled back")
        control.change(replay, ReplayState.ABORTED, {})
        expect(card.locator(".badge")).to_have_text("aborted")


def _plan(events: int) -> ReplayPlan:
    return ReplayPlan(
        job="page_views",
        views=("site_traffic_per_minute",),
        from_versions={"site_traffic_per_minute": 1},
        to_version=2,
        begin={"page_views": {0: 0}},
        pinned={"page_views": {0: events}},
        from_earliest=False,
        expected=Expectation((), ()),
        schema_ids=(),
        slots_needed=1,
        slots_free=1,
        bytes_needed=1,
        bytes_free=1,
        rate=1000.0,
        rate_from="test",
    )
