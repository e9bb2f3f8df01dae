"""The dashboard in a real Chromium: it loads, renews itself, comes back, and tells what is old."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from tests.endpoint.running import Endpoint, wait_for
from tests.serving.conftest import settings_over
from tests.serving.site import Database, Row, Server, serving

pytestmark = pytest.mark.stack

MILLISECONDS = 90_000
SITE = {
    "window_start": "time",
    "window_end": "time",
    "views": "long",
    "unique_users": "long",
    "errors": "long",
}
PAGES = {"page_id": "string", **SITE}
STATS = {"page_id": "string", "views": "long", "unique_users": "long", "last_seen": "time"}
ALERTS = {
    "transaction_id": "string",
    "user_id": "string",
    "event_time": "time",
    "amount_cents": "long",
    "score": "double",
    "reasons": "string",
}
MARKS = {"window_start": "time", "page_id": "string", "views": "long", "baseline": "double"}
EVIL = '"><img src=x onerror="window.broken=1"><script>window.broken=1</script>{{7*7}}'
FIGURES = ("Aggregated", "Late", "Dead", "In flight")
TODAY = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=2)


def window(number: int, **more: Any) -> Row:
    start = TODAY + timedelta(minutes=number)
    return {"window_start": start, "window_end": start + timedelta(minutes=1), **more}


def site(number: int, views: int, users: int = 7, errors: int = 0) -> Row:
    return window(number, views=views, unique_users=users, errors=errors)


@pytest.fixture
def filled(serving_endpoint: Endpoint, tmp_path: Path) -> Iterator[Database]:
    """A database of the test's own with two windows of traffic."""
    made = Database(settings_over(serving_endpoint, tmp_path))
    made.view("site_traffic_per_minute", SITE, ("window_start",), [site(0, 40), site(1, 60, 12, 5)])
    rows = [{**site(1, 45), "page_id": "/index.html"}, {**site(1, 15), "page_id": EVIL}]
    made.view("page_views_per_minute", PAGES, ("window_start", "page_id"), rows)
    yield made
    made.drop()


@pytest.fixture
def running(filled: Database, tmp_path: Path) -> Iterator[Server]:
    with serving(filled.settings, tmp_path / "serving.log") as server:
        yield server


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose errors and refused content fail the test."""
    context = browser.new_context(color_scheme="light")
    context.set_default_timeout(MILLISECONDS)
    expect.set_options(timeout=MILLISECONDS)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield opened
    context.close()
    assert faults == []


# Whether the views' line is anywhere over a part of the chart's width.
DRAWN = """part => {
  const chart = document.querySelector("#traffic-chart canvas");
  const over = document.querySelector("#traffic-chart .u-over").getBoundingClientRect();
  const x = over.left - chart.getBoundingClientRect().left + part * (over.width - 1);
  const scale = chart.width / chart.clientWidth, bytes = chart.getContext("2d")
    .getImageData(Math.round(x * scale) - 2, 0, 5, chart.height).data;
  const near = (at) => [44, 110, 138, 255].every((value, n) => Math.abs(bytes[at + n] - value) < 9);
  return bytes.some((_, at) => at % 4 === 0 && near(at));
}"""


def value(page: Page, tile: str) -> Any:
    return page.locator(f"#tile-{tile} .value")


def test_it_shows_the_newest_windows_and_renews_them(
    filled: Database, running: Server, page: Page
) -> None:
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("12")
    expect(value(page, "errors")).to_have_text("5.00 %")
    expect(page.locator("#tile-errors .note")).to_have_text("5 of 100 in the last 2 windows")
    expect(page.locator("#traffic-legend")).to_contain_text("Views 60")
    filled.add("site_traffic_per_minute", SITE, [site(2, 100, 31)])
    expect(value(page, "users")).to_have_text("31")
    expect(page.locator("#traffic-legend")).to_contain_text("Views 100")
    filled.add("site_traffic_per_minute", SITE, [site(2, 101, 32)], revision=1)
    expect(value(page, "users")).to_have_text("32")
    assert page.locator("#traffic-chart canvas").count() == 1
    label = page.locator("#traffic-chart").get_attribute("aria-label") or ""
    assert "101 views, 32 users, 0 errors; 0 anomalies" in label


def test_the_legend_has_the_newest_figures_of_the_window_under_the_pointer(
    filled: Database, running: Server, page: Page
) -> None:
    page.goto(running.url)
    legend, chart = page.locator("#traffic-legend"), page.locator("#traffic-chart .u-over")
    expect(legend).to_contain_text("Views 60")
    filled.add("site_traffic_per_minute", SITE, [site(2, 100), site(3, 120)])
    expect(legend).to_contain_text("Views 120")
    box = chart.bounding_box()
    assert box is not None
    for part, views in ((0.65, 100), (0.02, 40), (0.98, 120)):
        chart.hover(position={"x": part * box["width"], "y": box["height"] / 2})
        expect(legend).to_contain_text(f"Views {views}")
    filled.add("site_traffic_per_minute", SITE, [site(3, 121)], revision=1)
    expect(legend).to_contain_text("Views 121")
    chart.hover(position={"x": 0.97 * box["width"], "y": box["height"] / 3})
    filled.add("site_traffic_per_minute", SITE, [site(4, 130)])
    expect(value(page, "users")).to_have_text("7")
    page.mouse.move(0, 0)
    expect(legend).to_contain_text("Views 130")


def span(begin: datetime, length: timedelta, users: int) -> Row:
    figures = {"views": 10 * users, "unique_users": users, "errors": 0}
    return {"window_start": begin, "window_end": begin + length, **figures}


def test_a_window_that_is_open_is_no_fall(filled: Database, running: Server, page: Page) -> None:
    page.add_init_script(
        "window.dashes = []; const set = CanvasRenderingContext2D.prototype.setLineDash;"
        "CanvasRenderingContext2D.prototype.setLineDash = function (dash) {"
        " if (dash.length) window.dashes.push(dash); set.call(this, dash); }"
    )
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    minute, day = timedelta(minutes=1), timedelta(days=1)
    windows = [span(now - 2 * minute, minute, 84), span(now - minute, minute, 80)]
    filled.add("site_traffic_per_minute", SITE, [*windows, span(now, day, 3)])
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("80")
    expect(page.locator("#tile-users .note")).to_contain_text("; 84 the window before")
    expect(page.locator("#traffic-legend")).to_contain_text("Views 800")
    page.locator("#traffic summary").click()
    times = page.locator("#traffic-rows tr th")
    expect(times.nth(0)).to_have_text(f"{now:%H:%M}, open")
    expect(times.nth(1)).to_have_text(f"{now - minute:%H:%M}")
    assert page.evaluate("window.dashes.length") > 0


def test_no_line_goes_over_minutes_without_a_window(
    filled: Database, running: Server, page: Page
) -> None:
    now, minute = datetime.now(UTC).replace(second=0, microsecond=0), timedelta(minutes=1)
    begins = [(101, 84), (100, 85), (60, 90), (2, 80), (1, 70)]
    rows = [span(now - back * minute, minute, users) for back, users in begins]
    table = f"{filled.settings.database}.site_traffic_per_minute_v1"
    filled.clickhouse.command(f"TRUNCATE TABLE {table}")
    filled.add("site_traffic_per_minute", SITE, rows)
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("70")
    expect(page.locator("#tile-users .note")).to_contain_text("; 80 the window before")
    expect(page.locator("#traffic-rows tr")).to_have_count(5)
    legend, chart = page.locator("#traffic-legend"), page.locator("#traffic-chart .u-over")
    box = chart.bounding_box()
    assert box is not None
    for part, users in ((0.1, 85), (0.41, 90), (0.6, 90), (0.99, 80), (1, 70)):
        chart.hover(position={"x": part * (box["width"] - 1), "y": box["height"] / 2})
        expect(legend).to_contain_text(f"Users {users}")
    page.mouse.move(0, 0)
    # The window at 41 % stands alone, and so is a dot; lines are where two follow each other.
    assert [page.evaluate(DRAWN, part) for part in (0.2, 0.41, 0.7, 0.995)] == [
        False,
        True,
        False,
        True,
    ]
    filled.clickhouse.command(
        f"ALTER TABLE {table} DELETE WHERE unique_users = 80 SETTINGS mutations_sync = 1"
    )
    expect(page.locator("#tile-users .note")).to_have_text(f"at {now - minute:%H:%M}")


def test_figures_of_a_traffic_that_has_ended_look_old(
    filled: Database, running: Server, page: Page
) -> None:
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("12")
    expect(page.locator("#tile-users .note")).to_contain_text(" h ago")
    expect(value(page, "users")).to_have_css("opacity", "0.7")
    expect(value(page, "errors")).to_have_css("opacity", "0.7")
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    recent = span(now - timedelta(minutes=60), timedelta(minutes=60), 31)
    filled.add("site_traffic_per_minute", SITE, [recent])
    expect(value(page, "users")).to_have_text("31")
    expect(value(page, "users")).to_have_css("opacity", "1")


def change_pictures(page: Page, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` alter each picture on its way to the page."""

    def altered(message: str | bytes) -> str | bytes:
        if not str(message).startswith("{"):
            return message
        picture: dict[str, Any] = json.loads(message)
        change(picture)
        return json.dumps(picture)

    def relay(client: WebSocketRoute) -> None:
        server = client.connect_to_server()
        server.on_message(lambda message: client.send(altered(message)))

    page.route_web_socket(re.compile("/api/live$"), relay)


def told(picture: dict[str, Any], **sections: Any) -> None:
    """Let `picture` have the data of `sections`, as if just read."""
    for name, data in sections.items():
        picture["sections"][name] = {"at": picture["at"], "problem": "", "data": data}


def account(reads: str, aggregated: int, **more: Any) -> dict[str, Any]:
    waited = {"median": 0.5, "longest": 1.0, "last": 0.5, "pending": 0, "oldest_pending": None}
    counts = {"version": 1, "aggregated": aggregated, "late": 0, "dead": 0}
    return {**counts, **waited, "reads": reads, **more}


def job(name: str, version: int, *accounts: str) -> dict[str, Any]:
    known = {"state": "RUNNING", "failure": "", "started": 0, "checkpoint": None}
    counts = {"checkpoints_failed": 0, "watermark": None}
    return {"name": name, "version": version, "accounts": accounts, **known, **counts}


@pytest.mark.parametrize("running_still", [True, False])
def test_a_window_whose_events_are_on_their_way_is_no_fall(
    filled: Database, running: Server, page: Page, running_still: bool
) -> None:
    now, minute = datetime.now(UTC).replace(second=0, microsecond=0), timedelta(minutes=1)
    begins = [now - number * minute for number in (3, 2)]
    windows = [span(begin, minute, users) for begin, users in zip(begins, (84, 27), strict=True)]
    filled.add("site_traffic_per_minute", SITE, windows)
    until = round(begins[1].timestamp() * 1000) + 20_000
    pending = [9]

    def change(picture: dict[str, Any]) -> None:
        pages = account("page_views", 5, pending=pending[0])
        if pending[0]:
            # The job stopped at that moment, and so the oldest event waits for since then.
            pages["oldest_pending"] = (picture["at"] - until) / 1000
        known = {
            **job("page_views", 1, "page_views"),
            "watermark": until if running_still else None,
        }
        streams = {"page_views": {"total": 5, "rate": 0, "history": []}}
        told(picture, jobs=[known], accounts={"page_views": pages}, events=streams)

    change_pictures(page, change)
    page.goto(running.url)
    page.locator("#traffic summary").click()
    newest = page.locator("#traffic-rows tr th").first
    expect(value(page, "users")).to_have_text("84")
    expect(newest).to_have_text(f"{begins[1]:%H:%M}, open")
    pending[0] = 0
    expect(value(page, "users")).to_have_text("27")
    expect(newest).to_have_text(f"{begins[1]:%H:%M}")
    pending[0] = 3
    expect(page.locator("#tile-fresh .note")).to_have_text("ago, 3 events on their way")
    expect(newest).to_have_text(f"{begins[1]:%H:%M}")
    expect(value(page, "users")).to_have_text("27")


def test_each_job_has_the_figures_of_its_own_streams_and_version(
    running: Server, page: Page
) -> None:
    jobs = [
        job("page_views", 1, "page_views"),
        job("page_views.v2", 2, "page_views"),
        job("categories", 1, "pages", "page_requests"),
    ]
    read = {"page_views": {"0": 9}}
    lags = {
        "jobs": {one["name"]: {"lag": 0, "streams": read} for one in jobs},
        "views": {},
        "newest": {},
    }
    accounts = {
        "page_views": account("page_views", 20, version=2, dead=2, pending=4),
        "page_requests": account("page_views", 15, dead=2, late=1, pending=3),
        "pages": account("pages", 5, dead=1, pending=1),
    }
    change_pictures(page, lambda picture: told(picture, jobs=jobs, lags=lags, accounts=accounts))
    page.goto(running.url)
    expect(page.locator("#jobs-rows tr")).to_have_count(3)
    shown = [
        [line.locator(f'[data-label="{name}"]').text_content() for name in FIGURES]
        for line in page.locator("#jobs-rows tr").all()
    ]
    assert shown == [["–"] * 4, ["20", "0", "2", "4"], ["20", "1", "3", "4"]]
    expect(value(page, "apart")).to_have_text("4")
    expect(page.locator("#tile-apart .note")).to_have_text("1 late, 3 dead")


def test_figures_that_need_a_source_that_is_down_look_old_and_claim_nothing(
    running: Server, page: Page
) -> None:
    down = [True]

    def change(picture: dict[str, Any]) -> None:
        events = {"page_views": {"total": 5, "rate": 0, "history": []}}
        told(
            picture,
            jobs=[job("page_views", 1, "page_views")],
            lags={"jobs": {}, "views": {}, "newest": {}},
            accounts={"page_views": account("page_views", 5, median=None)},
            replays=[],
            events=events,
        )
        if down[0]:
            for name in ("events", "lags"):
                picture["sections"][name] |= {"at": 0, "problem": "Kafka does not answer."}

    change_pictures(page, change)
    page.goto(running.url)
    note = page.locator("#tile-fresh .note")
    expect(note).to_have_text("ago")
    expect(page.locator("#tile-pixel .note")).to_have_text("")
    for place in ("tile-rate", "tile-pixel", "tile-fresh", "jobs", "views"):
        expect(page.locator(f"#{place} .stale-note")).to_have_text("Kafka does not answer.")
        expect(page.locator(f"#{place} .stale-note")).to_be_visible()
    expect(page.locator("#tile-apart")).to_have_attribute("data-stale", "false")
    down[0] = False
    expect(note).to_have_text("ago, every event is in the views")
    expect(page.locator("#tile-pixel .note")).to_have_text("no new events for a minute")
    expect(page.locator("#jobs")).to_have_attribute("data-stale", "false")


@pytest.mark.parametrize(
    ("accounts", "in_flight"),
    [
        ({}, "–"),
        ({"page_views": account("page_views", 5, pending=None)}, "–"),
        ({"page_views": account("page_views", 5)}, "0"),
    ],
)
def test_events_are_not_said_to_be_in_the_views_where_nobody_counts_them(
    running: Server, page: Page, accounts: dict[str, Any], in_flight: str
) -> None:
    def change(picture: dict[str, Any]) -> None:
        streams = {
            name: {"total": 5, "rate": 0, "history": []} for name in ("orders", "page_views")
        }
        jobs = [job("page_views", 1, "page_views")]
        told(picture, jobs=jobs, accounts=accounts, events=streams)

    change_pictures(page, change)
    page.goto(running.url)
    expect(page.locator("#tile-fresh .note")).to_have_text("ago")
    expect(page.locator('#jobs-rows [data-label="In flight"]')).to_have_text(in_flight)


@pytest.mark.parametrize(("longest", "mood"), [(1.0, ""), (6.0, "warn")])
def test_events_that_take_longer_than_promised_stand_out(
    running: Server, page: Page, longest: float, mood: str
) -> None:
    accounts = {"s": account("s", 9, longest=longest)}
    change_pictures(page, lambda picture: told(picture, accounts=accounts))
    page.goto(running.url)
    expect(page.locator("#tile-pixel .note")).to_contain_text("median of a minute")
    expect(page.locator("#tile-pixel")).to_have_attribute("data-mood", mood)


@pytest.mark.parametrize(
    ("flows", "oldest", "note", "mood"),
    [
        (True, 4.0, "median of a minute, longest 4.0 s", ""),
        (True, 90.0, "median of a minute, longest 1 min, 7 on their way for 1 min", "warn"),
        (False, 4.0, "7 on their way, 4.0 s so far", ""),
        (False, 90.0, "7 on their way, 1 min so far", "warn"),
        (False, None, "7 on their way", ""),
    ],
)
def test_a_stream_that_stands_is_not_hidden_by_one_that_flows(
    running: Server, page: Page, flows: bool, oldest: float | None, note: str, mood: str
) -> None:
    stands = {"median": None, "longest": None, "pending": 7, "oldest_pending": oldest}
    accounts = {"orders": account("orders", 9, **stands)}
    if flows:
        accounts["page_views"] = account("page_views", 9, longest=0.5)
    change_pictures(page, lambda picture: told(picture, accounts=accounts))
    page.goto(running.url)
    expect(page.locator("#tile-pixel .note")).to_have_text(note)
    expect(page.locator("#tile-pixel")).to_have_attribute("data-mood", mood)


def test_a_panel_that_fails_stops_no_other(running: Server, page: Page) -> None:
    fails = [True]

    def change(picture: dict[str, Any]) -> None:
        sections = picture["sections"]
        if fails[0] and sections["traffic"]["data"]:
            sections["traffic"]["data"]["points"] = {"start": [1]}
            del sections["events"]

    change_pictures(page, change)
    page.goto(running.url)
    expect(page.locator("#traffic .stale-note")).to_have_text(
        "This can’t be shown; reload the page."
    )
    expect(page.locator("#traffic")).to_have_attribute("data-stale", "true")
    expect(page.locator("#tile-users .stale-note")).to_have_text(
        "This can’t be shown; reload the page."
    )
    expect(page.locator("#views-rows")).to_contain_text("site_traffic_per_minute")
    expect(page.locator("#top")).to_have_attribute("data-stale", "false")
    expect(page.locator("#top-list .name").first).to_have_text("/index.html")
    fails[0] = False
    expect(value(page, "users")).to_have_text("12")
    expect(page.locator("#traffic")).to_have_attribute("data-stale", "false")
    expect(page.locator("#traffic .stale-note")).to_have_text("")


def test_a_replay_tells_its_pace_and_the_time_left(running: Server, page: Page) -> None:
    first: list[int] = []

    def change(picture: dict[str, Any]) -> None:
        first.append(picture["at"])
        replay = {
            "id": 1,
            "job": "words",
            "views": ["word_counts"],
            "from_versions": {"word_counts": 1},
            "to_version": 2,
            "state": "building",
            "open": True,
            "changed": first[0],
            "events": 3_600_000,
            "read": (picture["at"] - first[0]) // 10,
            "versions": [],
            "journal": [],
        }
        told(picture, replays=[replay])

    change_pictures(page, change)
    page.goto(running.url)
    text = re.compile(
        r"of 3,600,000 events read, 0\.0\d %; (9\d\.\d|1\d\d) a second, (9|1\d) h left"
    )
    expect(page.locator("#replays-list")).to_contain_text(text)


@pytest.mark.parametrize("times", [1, 99])
def test_a_page_of_another_build_loads_itself_anew_once(
    running: Server, page: Page, times: int
) -> None:
    loads: list[str] = []
    page.on("request", lambda one: loads.append(one.url) if one.is_navigation_request() else None)

    def change(picture: dict[str, Any]) -> None:
        if len(loads) <= times:
            picture["build"] = "another"

    change_pictures(page, change)
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("12")
    shown = page.locator("#as-of").text_content() or ""
    expect(page.locator("#as-of")).not_to_have_text(shown)
    assert len(loads) == 2


def test_an_anomaly_is_ringed(filled: Database, running: Server, page: Page) -> None:
    page.add_init_script(
        "window.rings = []; const arc = CanvasRenderingContext2D.prototype.arc;"
        "CanvasRenderingContext2D.prototype.arc = function (...at) {"
        " window.rings.push(this.getLineDash().length); arc.apply(this, at); }"
    )
    found = {"window_start": TODAY, "page_id": "/", "views": 40, "baseline": 4.0}
    filled.view("traffic_anomalies", MARKS, ("window_start", "page_id"), [found])
    page.goto(running.url)
    expect(page.locator("#traffic-note")).to_contain_text("1 anomaly in this time")
    expect(page.locator("#traffic-legend")).to_contain_text("Anomaly")
    page.wait_for_function("window.rings.length > 0")
    assert set(page.evaluate("window.rings")) == {0}, "no dashes are left of the line before"


def test_hostile_names_are_text(filled: Database, running: Server, page: Page) -> None:
    filled.view(
        "page_stats",
        STATS,
        ("page_id",),
        [{"page_id": EVIL, "views": 3, "unique_users": 2, "last_seen": TODAY}],
    )
    filled.view(
        "fraud_alerts",
        ALERTS,
        ("transaction_id",),
        [
            {
                "transaction_id": EVIL,
                "user_id": EVIL,
                "event_time": TODAY,
                "amount_cents": 900,
                "score": 0.9,
                "reasons": EVIL,
            }
        ],
    )
    filled.view(
        "traffic_anomalies",
        MARKS,
        ("window_start", "page_id"),
        [{"window_start": TODAY, "page_id": EVIL, "views": 40, "baseline": 4.0}],
    )
    page.goto(running.url)
    expect(page.locator("#top-list .name").nth(1)).to_have_text(EVIL)
    expect(page.locator("#fraud-list")).to_contain_text(EVIL)
    expect(page.locator("#fraud header")).to_contain_text("Amounts in the account’s currency")
    expect(page.locator("#traffic-note")).to_contain_text(EVIL)
    page.locator("#top-list button").nth(1).click()
    expect(page.locator("#lookup-answer dd").first).to_have_text(EVIL)
    expect(page.locator("#lookup-answer dd").last).to_have_text(
        re.compile(rf"\b{TODAY:%H:%M}$"), use_inner_text=True
    )
    expect(page.locator("#lookup-id")).to_have_value(EVIL)
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script").count() == 0


def test_a_page_is_looked_up_by_the_very_id_and_the_last_one_asked_for_is_shown(
    filled: Database, running: Server, page: Page
) -> None:
    ids = ("/x", "/blog/../x", "/../../views", "/slow")
    stats = [
        {"page_id": one, "views": n, "unique_users": n, "last_seen": TODAY}
        for n, one in enumerate(ids)
    ]
    filled.view("page_stats", STATS, ("page_id",), stats)
    # What the server knows of its views may be a second old.
    wait_for(lambda: running.knows("page_stats"))
    held: list[Route] = []
    page.route(re.compile("slow"), lambda route: held.append(route))
    page.goto(running.url)
    answer = page.locator("#lookup-answer")

    def ask(one: str) -> None:
        page.get_by_label("Page", exact=True).fill(one)
        page.get_by_role("button", name="Show").click()

    for one in ids[:3]:
        ask(one)
        expect(answer.locator("dd").first).to_have_text(one)
        expect(answer.locator("dd").nth(1)).to_have_text(str(ids.index(one)))
    ask("/none")
    expect(answer).to_have_text('No view of page "/none" has been counted; ids begin with a slash.')
    ask("/slow")
    ask("/x")
    expect(answer.locator("dd").first).to_have_text("/x")
    with page.expect_response(re.compile("slow")) as response:
        held[0].continue_()
    response.value.finished()
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(answer.locator("dd").first).to_have_text("/x")


def test_markup_is_refused_even_where_a_script_would_set_it(running: Server, page: Page) -> None:
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("12")
    refused = "try { document.body.innerHTML = '<b>x</b>'; 'set' } catch { 'refused' }"
    context = page.context.new_page()
    context.goto(running.url)
    assert context.evaluate(refused) == "refused"
    context.close()


def test_panels_without_their_view_say_so(running: Server, page: Page) -> None:
    page.goto(running.url)
    expect(page.locator("#fraud-empty")).to_have_text(
        "No data yet: view fraud_alerts does not run."
    )
    expect(page.locator("#traffic-note")).to_have_text(
        "Anomalies: no data yet, their view does not run."
    )
    page.get_by_label("Page", exact=True).fill("/index.html")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#lookup-answer")).to_have_text(
        "No data yet: view page_stats does not run."
    )


def test_values_of_a_lost_server_look_old_until_it_is_back(
    filled: Database, running: Server, page: Page
) -> None:
    page.goto(running.url)
    expect(page.locator("#link")).to_have_text("Live")
    expect(value(page, "users")).to_have_text("12")
    assert page.locator("#traffic").get_attribute("data-stale") == "false"
    running.stop(signal.SIGKILL)
    expect(page.locator("#banner-text")).to_have_text("Connection lost: these values are old.")
    expect(page.locator("#link")).to_have_text("Connection lost")
    expect(page.locator("#as-of")).to_have_text(re.compile(r"^as of \d\d:\d\d:\d\d, .* ago$"))
    expect(value(page, "users")).to_have_text("12")
    expect(value(page, "apart")).to_have_css("opacity", "0.7")
    expect(page.locator("#traffic")).to_have_attribute("data-stale", "true")
    filled.add("site_traffic_per_minute", SITE, [site(2, 9, 99)])
    running.start()
    expect(value(page, "users")).to_have_text("99")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#banner")).to_be_hidden()
    expect(value(page, "apart")).to_have_css("opacity", "1")


def test_values_of_a_source_that_is_down_look_old_and_others_do_not(
    filled: Database, tmp_path: Path, browser: Browser, page: Page
) -> None:
    own = Endpoint(tmp_path / "endpoint")
    own.start()
    database = Database(settings_over(own, tmp_path))
    database.view("site_traffic_per_minute", SITE, ("window_start",), [site(0, 40)])
    with serving(database.settings, tmp_path / "log") as server:
        page.goto(server.url)
        expect(value(page, "users")).to_have_text("7")
        own.stop(signal.SIGKILL)
        expect(page.locator("#traffic .stale-note")).to_contain_text("does not answer")
        expect(page.locator("#traffic .stale-note")).to_contain_text("As of")
        expect(value(page, "users")).to_have_text("7")
        expect(page.locator("#link")).to_have_text("Live")
        wait_for(lambda: server.get("/readyz").status_code == 503)
        assert server.get("/healthz").status_code == 200
        own.start()
        expect(page.locator("#traffic")).to_have_attribute("data-stale", "false")
    own.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(
    browser: Browser, running: Server, scheme: Any
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(running.url)
    brightness = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(245, 246, 248)", "rgb(15, 19, 25)"
    assert page.evaluate(brightness) == (light if scheme == "light" else dark)
    button = page.get_by_role("button", name="Colours")
    button.click()
    assert page.evaluate(brightness) == light
    button.click()
    assert page.evaluate(brightness) == dark
    page.reload()
    assert page.evaluate(brightness) == dark
    expect(button).to_have_accessible_name("Colours: dark")
    context.close()


def test_it_fits_a_phone(browser: Browser, running: Server) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = context.new_page()
    page.goto(running.url)
    expect(value(page, "users")).to_have_text("12", timeout=MILLISECONDS)
    expect(page.locator("#views-rows tr").first).to_be_visible(timeout=MILLISECONDS)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    context.close()


def test_it_is_used_by_keyboard(filled: Database, running: Server, page: Page) -> None:
    stats = [{"page_id": "/index.html", "views": 45, "unique_users": 9, "last_seen": TODAY}]
    filled.view("page_stats", STATS, ("page_id",), stats)
    page.goto(running.url)
    expect(page.locator("#top-list .name").first).to_have_text("/index.html")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the figures")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    first = page.locator("#top-list button").first
    for _ in range(5):
        page.keyboard.press("Tab")
        if first.evaluate("one => one === document.activeElement"):
            break
    expect(first).to_be_focused()
    shown = page.locator("#as-of").text_content() or ""
    expect(page.locator("#as-of")).not_to_have_text(shown)
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#lookup-answer dd").nth(1)).to_have_text("45")


def test_the_docs_work_under_their_policy(running: Server, page: Page) -> None:
    page.goto(f"{running.url}/docs")
    expect(page.locator(".opblock-summary-path").first).to_be_visible()
    expect(page.get_by_text("/api/page-stats/{page_id}")).to_be_visible()
