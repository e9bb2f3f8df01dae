"""Lags, freshness and stuck offsets, from what was read at one moment or two."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from deploy.monitor.arrivals import Arrivals
from deploy.monitor.figures import (
    JOB,
    LOADER,
    OTHER,
    REBUILD,
    Freshness,
    Lag,
    OpenTransactions,
    ReplayProgress,
    StableOffsets,
    freshness,
    job_readers,
    lags,
    running,
)
from deploy.monitor.looking import Findings
from deploy.monitor.metrics import FindingsCollector
from replay.astray import Astray
from replay.records import VersionState
from sinks.lag import PartitionLag, StableOffset

TOPIC = "views.clicks.v2"


def test_a_lag_sums_records_and_takes_the_worst_partition() -> None:
    arrivals = Arrivals()
    for now, ends in ((0.0, (10, 4)), (30.0, (12, 6))):
        found = lags(
            [
                PartitionLag("readers", TOPIC, 0, committed=11, end=ends[0]),
                PartitionLag("readers", TOPIC, 1, committed=1, end=ends[1]),
            ],
            lambda _: LOADER,
            arrivals,
            now,
        )
    assert found == [Lag("readers", LOADER, TOPIC, records=1 + 5, seconds=30.0)]


def test_a_view_is_as_stale_as_its_job_and_its_loader_together() -> None:
    found = [
        Lag("kappa-clicks.v2", JOB, "events.clicks", 9, 4.0),
        Lag("kappa-clicks.v2", JOB, "events.users", 1, 7.0),
        Lag("kappa-loader", LOADER, TOPIC, 3, 2.0),
        Lag("kappa-loader", LOADER, "views.clicks.v1", 0, 0.0),
    ]
    versions = {TOPIC: ("clicks", 2), "views.clicks.v1": ("clicks", 1)}
    fresh = freshness(found, versions, lambda view, version: f"kappa-{view}.v{version}")
    assert fresh == [Freshness("clicks", 2, 9.0)], "version 1 has no job that ever committed"


def test_a_rebuild_is_no_job_before_its_views_are_shown() -> None:
    versions = [(view, version) for version in (1, 2, 3, 4, 5) for view in ("clicks", "users")]
    states = {
        ("clicks", 1): VersionState.RETIRED,
        ("clicks", 2): VersionState.RETIRING,
        ("users", 2): VersionState.RETIRING,
        ("clicks", 3): VersionState.LIVE,
        ("users", 3): VersionState.STANDBY,
        ("clicks", 4): VersionState.BUILDING,
        ("users", 4): VersionState.BUILDING,
    }
    found = job_readers(versions, states, lambda _, version: f"v{version}")
    assert found == {"v1": JOB, "v2": OTHER, "v3": JOB, "v4": REBUILD, "v5": JOB}
    lag = [Lag("v4", REBUILD, "events.clicks", 9, 4.0), Lag("loader", LOADER, TOPIC, 3, 2.0)]
    assert freshness(lag, {TOPIC: ("clicks", 4)}, lambda _, version: f"v{version}") == []


def test_a_job_is_expected_while_people_see_what_it_writes() -> None:
    readers = {"kappa-clicks": JOB, "kappa-clicks.v2": REBUILD, "kappa-users": JOB, "kappa-a": JOB}
    jobs = [("clicks", "RUNNING"), ("clicks", "CANCELED"), ("users", "RESTARTING")]
    assert running(readers, jobs) == {"a": False, "clicks": True, "users": False}


def test_an_offset_that_moves_is_not_stuck() -> None:
    stable = StableOffsets()
    assert stable.look([StableOffset(TOPIC, 0, 5, 9)], 100.0) == [OpenTransactions(TOPIC, 4, 0.0)]
    assert stable.look([StableOffset(TOPIC, 0, 5, 12)], 130.0) == [OpenTransactions(TOPIC, 7, 30.0)]
    assert stable.look([StableOffset(TOPIC, 0, 8, 12)], 140.0) == [OpenTransactions(TOPIC, 4, 0.0)]
    assert stable.look([StableOffset(TOPIC, 0, 12, 12)], 150.0) == [OpenTransactions(TOPIC, 0, 0.0)]


def test_findings_become_metrics_and_what_is_gone_is_not_shown() -> None:
    found = Findings(
        {"kafka": True, "postgres": False},
        [Lag("kappa-clicks", JOB, "events.clicks", 9, 4.5)],
        [Freshness("clicks", 1, 6.5)],
        {"clicks": 1000},
        [OpenTransactions(TOPIC, 4, 30.0)],
        [ReplayProgress(7, "clicks", 2, "building", 500, 125, ("clicks",))],
        {"clicks": True, "users.v2": False},
        {"clicks": 2},
        lost_known=False,
        astray=(Astray("clicks", 1, 2),),
    )
    registry = CollectorRegistry()
    registry.register(FindingsCollector(lambda: found))
    lines = [line for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    reader = 'group="kappa-clicks",reader="job",topic="events.clicks"'
    replay = 'job_name="clicks",replay="7",state="building",version="2"'
    assert lines == [
        'kappa_service_answers{service="kafka"} 1.0',
        'kappa_service_answers{service="postgres"} 0.0',
        f"kappa_lag_records{{{reader}}} 9.0",
        f"kappa_lag_seconds{{{reader}}} 4.5",
        'kappa_view_freshness_seconds{version="1",view="clicks"} 6.5',
        'kappa_events_total{stream="clicks"} 1000.0',
        f'kappa_open_transaction_records{{topic="{TOPIC}"}} 4.0',
        f'kappa_stable_offset_stuck_seconds{{topic="{TOPIC}"}} 30.0',
        'kappa_job_running{job_name="clicks"} 1.0',
        'kappa_job_running{job_name="users.v2"} 0.0',
        'kappa_lost_transactions{job_name="clicks"} 2.0',
        "kappa_lost_transactions_known 0.0",
        'kappa_view_astray{live="2",version="1",view="clicks"} 1.0',
        f"kappa_replay_pinned_events{{{replay}}} 500.0",
        f"kappa_replay_read_events{{{replay}}} 125.0",
        'kappa_rebuilding{stream="clicks",version="2"} 1.0',
    ]
    found = Findings({"kafka": False})
    assert "events.clicks" not in generate_latest(registry).decode()
