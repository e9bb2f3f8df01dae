"""The queries behind the dashboard's panels. A view that is absent makes its panel None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from serving.catalogue import ViewInfo
from serving.formats import json_rows, readable
from sinks.clickhouse import ClickHouse
from sinks.queries import IS_MISSED
from sinks.sql import identifier, literal
from sinks.tables import EMITTED_AT

SITE, PAGES = "site_traffic_per_minute", "page_views_per_minute"
STATS, FRAUD, ANOMALIES = "page_stats", "fraud_alerts", "traffic_anomalies"
_POINTS, _TOP_ROWS, _ALERTS = 120, 10, 8
_TOP_MINUTES = 5

Views = Mapping[str, ViewInfo]


def traffic(clickhouse: ClickHouse, views: Views) -> dict[str, Any]:
    """Return the site's newest windows, the busiest pages, anomalies and fraud alerts."""
    points = _points(clickhouse, views)
    since = points["start"][0] if points and points["start"] else None
    return {
        "points": points,
        "anomalies": _anomalies(clickhouse, views, since),
        "top_pages": _top_pages(clickhouse, views),
        "alerts": _alerts(clickhouse, views),
    }


def _points(clickhouse: ClickHouse, views: Views) -> dict[str, Any] | None:
    view = views.get(SITE)
    if view is None or not view.has("window_start", "views", "unique_users", "errors"):
        return None
    rows = clickhouse.query(
        "SELECT toUnixTimestamp(window_start), toUnixTimestamp(window_end), views, unique_users,"
        f" errors FROM {identifier(SITE)} WHERE {_recent(view, _POINTS)}"
        f" ORDER BY window_start DESC LIMIT {_POINTS}"
    ).rows[::-1]
    names = ("start", "end", "views", "users", "errors")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _anomalies(
    clickhouse: ClickHouse, views: Views, since: int | None
) -> list[dict[str, Any]] | None:
    """Return one anomaly of each window since then; each has how many were found in all."""
    view = views.get(ANOMALIES)
    if view is None or not view.has("window_start", "page_id"):
        return None
    wanted = ("window_start", "page_id", "views", "baseline", "severity")
    sql = (
        f"SELECT {_present(view, wanted)}, count() OVER () AS found FROM {identifier(view.name)}"
        " WHERE window_start >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
        f" ORDER BY window_start DESC, page_id LIMIT 1 BY window_start LIMIT {_POINTS}"
    )
    return _rows(clickhouse, sql, {"since": (since or 0) * 1000})


def _top_pages(clickhouse: ClickHouse, views: Views) -> dict[str, Any] | None:
    """Return the pages with the most views in the newest minutes, and when these were."""
    minutes = views.get(PAGES)
    if minutes is None:
        return None
    rows = _rows(
        clickhouse,
        "SELECT page_id, sum(views) AS views, min(window_start) AS first,"
        f" max(window_end) AS last FROM {identifier(PAGES)}"
        f" WHERE {_recent(minutes, _TOP_MINUTES)}"
        f" GROUP BY page_id ORDER BY views DESC, page_id LIMIT {_TOP_ROWS}",
    )
    return {
        "from": min((row["first"] for row in rows), default=None),
        "to": max((row["last"] for row in rows), default=None),
        "pages": [{"page_id": row["page_id"], "views": row["views"]} for row in rows],
    }


def _alerts(clickhouse: ClickHouse, views: Views) -> list[dict[str, Any]] | None:
    view = views.get(FRAUD)
    if view is None or not view.has("event_time"):
        return None
    wanted = ("transaction_id", "user_id", "event_time", "amount_cents", "score", "reasons")
    return _rows(
        clickhouse,
        f"SELECT {_present(view, wanted)} FROM {identifier(FRAUD)}"
        f" ORDER BY event_time DESC LIMIT {_ALERTS}",
    )


def view_states(clickhouse: ClickHouse, views: Views) -> list[dict[str, Any]]:
    """Return every view with its version, rows and when its newest row was emitted (epoch ms)."""
    if not views:
        return []
    newest = clickhouse.query(
        " UNION ALL ".join(
            f"SELECT {literal(name)}, toUnixTimestamp64Milli(maxOrNull({identifier(EMITTED_AT)}))"
            f" FROM {identifier(view.table)}"
            for name, view in views.items()
        )
    ).rows
    moments = dict(newest)
    return [
        {
            "name": view.name,
            "doc": view.doc,
            "version": view.version,
            "versions": view.versions,
            "rows": view.stored_rows,
            "newest": moments.get(view.name),
        }
        for view in views.values()
    ]


def accounts(clickhouse: ClickHouse, views: Views) -> dict[str, dict[str, Any]]:
    """Return by stream how many events became aggregated, late or dead, at the shown version."""
    found: dict[str, dict[str, Any]] = {}
    for name, view in views.items():
        stream = name.removesuffix("_accounting")
        if stream != name and view.has("events"):
            sums = f"sum(events), sumIf(events, {IS_MISSED})"
            query = f"SELECT {sums} FROM {identifier(name)}"
            total, too_late = (count or 0 for count in clickhouse.query(query).rows[0])
            counts = {"aggregated": total - too_late, "late": too_late, "dead": 0}
            found[stream] = {"version": view.version, **counts}
    for name, table in (("late", "late_events"), ("dead", "dead_letters")):
        if table not in views:
            continue
        grouped = f"SELECT stream, version, count() FROM {identifier(table)} GROUP BY ALL"
        for stream, version, count in clickhouse.query(grouped).rows:
            if stream in found and found[stream]["version"] == version:
                found[stream][name] += count
    return found


def _recent(view: ViewInfo, minutes: int) -> str:
    """Return the condition that a window of `view` is of its newest `minutes`."""
    # The newest window needs no FINAL, and without it the table's own statistics tell.
    newest = f"(SELECT max(window_start) FROM {identifier(view.table)})"
    return f"window_start > {newest} - toIntervalMinute({minutes})"


def _present(view: ViewInfo, wanted: Sequence[str]) -> str:
    return ", ".join(identifier(name) for name in wanted if name in view.by_name)


def _rows(
    clickhouse: ClickHouse, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    return json_rows(readable(clickhouse.arrow(sql, parameters)))
