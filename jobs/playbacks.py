"""Playbacks of films and series: what is watched to the end, and how many watch at once."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView, Tumbling, WindowView
from schemas.columns import Column, ColumnType
from schemas.streams import PLAYBACKS
from udfs.measures import CountDistinct, Sum

_KEPT = timedelta(days=5 * 365)
_VIEWERS = CountDistinct("session_id", doc="Sessions that played in the minute, exact.")
_WATCHED = Sum("watched_ms", doc="Time played, as reported in the minute, milliseconds.")

TITLES_PER_HOUR = QueryView(
    name="titles_per_hour",
    sources=(PLAYBACKS,),
    key_columns=("window_start", "title_id"),
    query_columns=(
        Column("title_id", ColumnType.STRING, doc="What was played."),
        Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the hour."),
        Column("window_end", ColumnType.TIMESTAMP, doc="First instant after the hour."),
        Column("minutes_watched", ColumnType.DOUBLE, doc="Time played, as reported in the hour."),
        Column("viewers", ColumnType.LONG, doc="Sessions that played."),
        Column("ended", ColumnType.LONG, doc="Sessions that ended."),
        Column("completed", ColumnType.LONG, doc="Of those, at nine tenths of the title or more."),
        Column(
            "completion_rate",
            ColumnType.DOUBLE,
            nullable=True,
            doc="Completed of ended, 0 to 1; null where none ended.",
        ),
    ),
    sql="""
        WITH hours AS (
            SELECT title_id, window_start, window_end,
                SUM(watched_ms) AS watched,
                COUNT(DISTINCT session_id) AS viewers,
                COUNT(DISTINCT session_id) FILTER (WHERE completed_percent IS NOT NULL) AS ended,
                COUNT(DISTINCT session_id) FILTER (WHERE completed_percent >= 90) AS completed
            FROM TABLE(TUMBLE(TABLE playbacks, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            GROUP BY title_id, window_start, window_end)
        SELECT title_id, window_start, window_end, CAST(watched AS DOUBLE) / 60000,
            viewers, ended, completed, CAST(completed AS DOUBLE) / NULLIF(ended, 0)
        FROM hours
    """,
    retention=_KEPT,
    time_columns=("window_start", "window_end"),
    description="How long each title was watched, hour by hour, and how often to its end.",
)

CONCURRENT_VIEWERS_PER_MINUTE = WindowView(
    name="concurrent_viewers_per_minute",
    stream=PLAYBACKS,
    dimensions=(),
    window=Tumbling(timedelta(minutes=1)),
    measures={"viewers": _VIEWERS, "watched_ms": _WATCHED},
    retention=_KEPT,
    description="How many watch at once, minute by minute.",
)

CONCURRENT_VIEWERS_BY_DEVICE = WindowView(
    name="concurrent_viewers_by_device",
    stream=PLAYBACKS,
    dimensions=("device", "country"),
    window=Tumbling(timedelta(minutes=1)),
    measures={"viewers": _VIEWERS, "watched_ms": _WATCHED},
    retention=_KEPT,
    description="How many watch at once by device and country, minute by minute.",
)

JOB = Job(
    "playbacks",
    (PLAYBACKS,),
    (TITLES_PER_HOUR, CONCURRENT_VIEWERS_PER_MINUTE, CONCURRENT_VIEWERS_BY_DEVICE),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
