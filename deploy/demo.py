"""`kappa demo`: a real access log through the whole stack, and what comes out of it."""

from __future__ import annotations

import time

from deploy.commands import up
from deploy.console import OUT, CommandError, print_table, progress_bar
from deploy.flink import TASKMANAGER_METRICS_PORT
from deploy.services import LOADER_METRICS_PORT
from deploy.settings import Settings, reached
from jobs.catalogue import job_named
from jobs.cluster import Cluster
from jobs.commands import plain_errors, submit
from jobs.status import JobStatus, statuses
from jobs.submit import flink_name
from jobs.versions import usual_version
from jobs.views import WindowView
from schemas.commands import produce
from schemas.topics import UnknownTopic, end_offsets
from sinks.clickhouse import ClickHouse, ClickHouseFailed

_JOB = "page_views"
_DEADLINE_SECONDS = 180.0
_POLL_SECONDS = 0.5

_SHOWN = ("page_views_per_minute", "site_traffic_per_minute", "page_views_sliding")
"""Those of the results; a user's own have other measures, or no rows yet."""
_RESULTS = {
    "The five pages with the most views": """
        SELECT page_id, sum(views) AS views, sum(errors) AS errors,
               max(unique_users) AS most_visitors_a_minute
        FROM page_views_per_minute GROUP BY page_id ORDER BY views DESC, page_id LIMIT 5""",
    "The five busiest minutes of the site": """
        SELECT window_start, views, unique_users, errors
        FROM site_traffic_per_minute ORDER BY views DESC, window_start LIMIT 5""",
    "Where the most visitors met within five minutes": """
        SELECT page_id, window_start, window_end, unique_users, views
        FROM page_views_sliding ORDER BY unique_users DESC, views DESC, window_start, page_id
        LIMIT 1 BY page_id LIMIT 5""",
}


def run(settings: Settings) -> None:
    """Bring up the stack, send the sample, run the job, wait for its views and show them."""
    up(as_json=False)
    with plain_errors():
        status = _fill(settings)
    _print_results(settings)
    _print_accounts(status)
    _print_where_next(settings)


def _fill(settings: Settings) -> JobStatus:
    """Send the sample and run the job, where that is not done, and wait for its views."""
    if _events(settings):
        OUT.print("The sample is in Kafka already; it is not sent twice.", highlight=False)
    else:
        produce("sample", stream=_JOB)
    name = flink_name(settings, _JOB, usual_version(settings, job_named(_JOB)))
    if Cluster(*settings.flink_clusters).live_job(name):
        OUT.print(f"Job {name} runs already.", highlight=False)
    else:
        submit([_JOB], version=None, restore="latest", views=None, parallelism=None, as_json=False)
    return _await_views(settings)


def _events(settings: Settings) -> int:
    stream = job_named(_JOB).within(settings.namespace).stream
    try:
        return sum(end_offsets(settings.kafka_client, stream.topic).values())
    except UnknownTopic:
        return 0


def _await_views(settings: Settings) -> JobStatus:
    """Wait until every event of the topic stands in the views, or in late or dead letters."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with progress_bar(unit="events in the views") as progress:
        bar = progress.add_task("Flink and loader", total=None)
        while True:
            status = next(s for s in statuses(settings) if s.stream.endswith(f"events.{_JOB}"))
            fates = (status.aggregated, status.late, status.dead, status.missed)
            placed = sum(count or 0 for count in fates)
            progress.update(bar, total=status.events, completed=placed)
            if status.events and placed == status.events and _views_full(settings, status):
                return status
            if time.monotonic() > deadline:
                raise CommandError(
                    f"Only {placed:,} of {status.events or 0:,} events reached the views within "
                    f"{_DEADLINE_SECONDS:.0f} s; `kappa status` and `kappa logs taskmanager` tell "
                    "more."
                )
            time.sleep(_POLL_SECONDS)


def _views_full(settings: Settings, status: JobStatus) -> bool:
    """Tell whether each view shown counts every aggregated event, in each of its windows.

    Those missed are in some: then it can't be told.
    """
    if status.missed:
        return True
    clickhouse = ClickHouse(settings, reader=True)
    try:
        return all(
            clickhouse.query(f"SELECT sum(views) FROM {view.name}").rows[0][0]
            == (status.aggregated or 0) * (view.window.size // view.window.slide)
            for view in job_named(_JOB).views
            if isinstance(view, WindowView) and view.name in _SHOWN
        )
    except ClickHouseFailed:
        return False
    finally:
        clickhouse.close()


def _print_results(settings: Settings) -> None:
    clickhouse = ClickHouse(settings, reader=True)
    for title, query in _RESULTS.items():
        answer = clickhouse.query(query)
        OUT.print()
        print_table(title, answer.columns, answer.rows)
    clickhouse.close()


def _print_accounts(status: JobStatus) -> None:
    OUT.print(
        f"\nEvery event is accounted for: {status.events:,} in the topic = "
        f"{status.aggregated:,} aggregated + {status.late:,} late + {status.dead:,} dead"
        + (f" + {status.missed:,} missed." if status.missed else "."),
        highlight=False,
    )


def _print_where_next(settings: Settings) -> None:
    scheme = "https" if settings.clickhouse_tls else "http"
    host = f"{scheme}://{settings.clickhouse_host}:{settings.clickhouse_http_port}"
    password = settings.clickhouse_reader_password.get_secret_value()
    loader = reached(settings.metrics_host, settings.port(LOADER_METRICS_PORT))
    lines = [
        ("Dashboard", settings.serving),
        ("  its API", f"{settings.serving}/docs"),
        ("Ask in SQL", 'kappa sql "SELECT * FROM page_views_per_minute LIMIT 5"'),
        (
            "  over HTTP",
            f"curl '{host}/?user={settings.clickhouse_reader}&password={password}"
            f"&database={settings.database}' -d 'SHOW TABLES'",
        ),
        ("Flink's own UI", settings.flink),
        ("Metrics of Flink", f"http://127.0.0.1:{settings.port(TASKMANAGER_METRICS_PORT)}/metrics"),
        ("  of the loader", f"http://{loader}/metrics"),
        ("How all is", "kappa status"),
        ("Stop it", "kappa down"),
    ]
    OUT.print("\n[bold]Where to look next[/] (kappa is .venv/bin/kappa)", highlight=False)
    for what, where in lines:
        OUT.print(f"  {what:<17} {where}", markup=False, highlight=False, soft_wrap=True)
