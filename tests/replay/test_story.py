"""The README's story: a wrong rule, its fix, a rebuild, a switch under load, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from jobs.cluster import Cluster
from jobs.submit import cancel, flink_name
from schemas.topics import topic_names
from tests import datasets
from tests.harness import Environment, create_topic, kappa, register, rows, start_loader, wait_for
from tests.replay.running import (
    PUBLIC,
    REBUILT,
    SAMPLE_EVENTS,
    SUBMIT,
    Reading,
    done,
    events_loaded,
    newest,
    project_with,
    readers,
    refused,
    run,
    shown,
)

# Of the 9,999 requests of the sample log these have a status of 400 or more, of 500 or more.
WRONG, RIGHT = 220, 3

_BOTH = """
    SELECT (SELECT sum(errors) FROM page_views_per_minute),
           (SELECT sum(errors) FROM site_traffic_per_minute)"""


@pytest.fixture
def wrong(empty: Environment, tmp_path: Path) -> Environment:
    """Version 1 is live and takes what readers got wrong (a 404) for errors of the site."""
    project = project_with(
        tmp_path,
        "jobs/page_views.py",
        {'"errors": Count("status", ">=", 500': '"errors": Count("status", ">=", 400'},
    )
    register(empty, datasets.V1)
    create_topic(empty)
    kappa(empty, "produce", "sample")
    start_loader(empty)
    submitted = run(empty, *SUBMIT, project=project)
    assert submitted.returncode == 0, submitted.stderr
    events_loaded(empty, 1)
    return empty


def test_a_wrong_rule_is_fixed_promoted_rolled_back_and_retired(
    wrong: Environment, browser: Browser, pictures: Path
) -> None:
    """Also writes the README's picture of a comparison."""
    env, database = wrong, wrong.settings.database
    assert errors_of(env) == (WRONG, WRONG)

    done(env, "build", "--expect-column", "errors", "--yes")
    assert errors_of(env) == (WRONG, WRONG)
    report = done(env, "verify")
    assert report["unexplained"] == 0
    assert report["counts"]["expected"] > 0
    look_at_report(env, browser, pictures / "verification.png")

    with readers(env, _BOTH) as reading:
        done(env, "promote", "--yes")
    seen_whole(reading)
    print(
        f"\n{len(reading.answers):,} queries, the longest pause between two answers "
        f"{reading.longest_pause_ms():.0f} ms"
    )
    assert reading.stale((WRONG, WRONG), (RIGHT, RIGHT)) == 0

    with readers(env, _BOTH) as reading:
        done(env, "rollback", "--yes", "--reason", "to see the old one again")
        done(env, "promote", "--yes")
        done(env, "retire", "--now", "--yes")
        wait_for(lambda: len(reading.answers), 60, "1,000 answers", until=lambda n: n > 1_000)
    seen_whole(reading)
    print(f"{len(reading.answers):,} queries over two more, none failed or mixed")

    assert errors_of(env) == (RIGHT, RIGHT)
    assert shown(env) == dict.fromkeys(PUBLIC, 2)
    assert not [
        t
        for t in topic_names(env.settings.kafka_client)
        if t.endswith("minute.v1") and t.startswith(env.settings.topic_prefix)
    ]
    assert rows(
        env, f"SELECT count() FROM system.tables WHERE database = '{database}' AND name LIKE '%_v1'"
    ) == [(0,)]
    assert Cluster(env.settings.flink).live_job(f"{env.settings.topic_prefix}page_views") is None
    status = kappa(env, "status")["jobs"]
    assert [(job["name"], job["state"]) for job in status] == [
        (f"{env.settings.topic_prefix}page_views.v2", "RUNNING")
    ]


# Three jobs and two comparisons; which views go together is tested without them in `test_plan.py`.
@pytest.mark.long
def test_views_may_be_replaced_one_by_one(live: Environment) -> None:
    env = live
    first, *others = REBUILT
    both = {first: 2, "page_views_accounting": 2}
    done(env, "run", first, "--yes")
    assert shown(env) == dict.fromkeys(PUBLIC, 1) | both
    ended = run(env, "replay", "retire", "--now", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert f"Version 1 goes on, as people see {', '.join(sorted(others))} in it" in ended.stderr
    assert newest(env).state == "retired"
    assert shown(env) == dict.fromkeys(PUBLIC, 1) | both
    cluster = Cluster(env.settings.flink)
    assert cluster.live_job(flink_name(env.settings, "page_views", 1)) is not None

    done(env, "run", *others, "--yes")
    assert shown(env) == dict.fromkeys(PUBLIC, 3) | {first: 2}
    done(env, "retire", "--now", "--yes")
    assert newest(env).state == "retired"
    assert shown(env) == dict.fromkeys(PUBLIC, 3) | {first: 2}
    assert cluster.live_job(flink_name(env.settings, "page_views", 1)) is None
    for version in (2, 3):
        assert cluster.live_job(flink_name(env.settings, "page_views", version)) is not None
    assert events_in(env, first) == events_in(env, "site_traffic_per_minute") == SAMPLE_EVENTS


def events_in(env: Environment, view: str) -> int:
    """Return how many events stand in the windows of `view`."""
    ((views,),) = rows(env, f"SELECT sum(views) FROM {env.settings.database}.{view}")
    return int(views)


def test_an_unexplained_difference_is_promoted_only_for_a_reason(wrong: Environment) -> None:
    env = wrong
    done(env, "build", "--yes")
    assert "are unexplained, so nothing is promoted" in refused(env, "promote", "--yes")
    assert errors_of(env) == (WRONG, WRONG)
    assert newest(env).state == "built"
    done(env, "promote", "--yes", "--force", "the rule was wrong")
    assert errors_of(env) == (RIGHT, RIGHT)

    done(env, "rollback", "--yes")
    cancel(env.settings, flink_name(env.settings, "page_views", 1))
    assert "does not run, so its rows stand still" in refused(env, "promote", "--yes")
    assert errors_of(env) == (WRONG, WRONG)
    done(env, "promote", "--yes", "--force", "the old job is broken")
    assert errors_of(env) == (RIGHT, RIGHT)
    back = run(env, "replay", "rollback", "--yes")
    assert "does not run, so the rows to be shown end where it stopped" in back.stderr
    assert (back.returncode, errors_of(env)) == (0, (WRONG, WRONG))


def seen_whole(reading: Reading) -> None:
    """Every query was answered, both versions were seen, and never one view of each."""
    assert reading.failures == {}
    assert set(reading.counts()) == {(WRONG, WRONG), (RIGHT, RIGHT)}


def look_at_report(env: Environment, browser: Browser, picture: Path) -> None:
    """Open the newest report as people do; it shows the difference and loads nothing."""
    reports = (env.settings.home / "reports").glob("*.html")
    newest_report = max(reports, key=lambda path: path.stat().st_mtime)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(newest_report.as_uri())
    expect(page.locator("body")).to_contain_text("errors")
    expect(page.locator("body")).to_contain_text("page_views_per_minute")
    assert asked == [newest_report.as_uri()]
    page.screenshot(path=picture)
    page.close()


def errors_of(env: Environment) -> tuple[int, int]:
    """Return the sum of errors that two public views show."""
    database = env.settings.database
    (page,), (site,) = (
        rows(env, f"SELECT sum(errors) FROM {database}.{view}")[0]
        for view in ("page_views_per_minute", "site_traffic_per_minute")
    )
    return page, site
