"""Experiments: how many of the users who saw a variant convert."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import CONVERSIONS, EXPOSURES

CONVERSION_WINDOW = timedelta(hours=1)
REMEMBERED = timedelta(days=2 * 365)
"""A user is counted once in so long, and again after it, however often seen: Flink ends the state
of each distinct user so long after the first time, whatever came since. No experiment runs longer.
"""

_EXPERIMENT = Column("experiment", ColumnType.STRING, doc="The experiment.")
_VARIANT = Column("variant", ColumnType.STRING, doc="The variant seen.")
_EXPOSED = Column("exposed_users", ColumnType.LONG, doc="Users who saw the variant.")
_CONVERTED = Column(
    "converted_users", ColumnType.LONG, doc="Of those, reached any goal within an hour after."
)
_RATE = Column("conversion_rate", ColumnType.DOUBLE, doc="Converted of exposed, 0 to 1.")

EXPERIMENT_RESULTS = QueryView(
    name="experiment_results",
    sources=(EXPOSURES, CONVERSIONS),
    key_columns=("experiment", "variant"),
    query_columns=(
        _EXPERIMENT,
        _VARIANT,
        _EXPOSED,
        _CONVERTED,
        _RATE,
        Column(
            "standard_error", ColumnType.DOUBLE, doc="Of the rate, by the normal approximation."
        ),
    ),
    # Every exposure counts at once, every conversion as it comes; distinct users count once.
    sql="""
        WITH outcomes AS (
            SELECT experiment, `variant`, user_id, CAST(NULL AS STRING) AS converted
            FROM exposures
            UNION ALL
            SELECT e.experiment, e.`variant`, e.user_id, c.user_id
            FROM exposures AS e
            JOIN conversions AS c
                ON c.user_id = e.user_id
                AND c.event_time BETWEEN e.event_time AND e.event_time + INTERVAL '1' HOUR),
        results AS (
            SELECT experiment, `variant`,
                COUNT(DISTINCT user_id) AS exposed_users,
                COUNT(DISTINCT converted) AS converted_users
            FROM outcomes
            GROUP BY experiment, `variant`)
        SELECT experiment, `variant`, exposed_users, converted_users,
            CAST(converted_users AS DOUBLE) / exposed_users,
            SQRT(CAST(converted_users AS DOUBLE) * (exposed_users - converted_users)
                / exposed_users) / exposed_users
        FROM results
    """,
    grows=("exposed_users", "converted_users"),
    state_retention=REMEMBERED,
    description="Each experiment's variants so far: users, conversions and rate; to whatever goal. "
    f"A user who is seen for more than {REMEMBERED.days} days is counted again.",
)

EXPERIMENT_RESULTS_PER_HOUR = QueryView(
    name="experiment_results_per_hour",
    sources=(EXPOSURES, CONVERSIONS),
    key_columns=("window_start", "experiment", "variant"),
    query_columns=(
        _EXPERIMENT,
        _VARIANT,
        Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the exposures' hour."),
        Column("window_end", ColumnType.TIMESTAMP, doc="First instant after it."),
        _EXPOSED,
        _CONVERTED,
        _RATE,
    ),
    # It comes an hour late: only then has every user of the hour had the whole time to convert.
    # A LEFT JOIN would tell of an exposure without a conversion when the user's newest times out,
    # which may be past the hour.
    sql="""
        WITH outcomes AS (
            SELECT experiment, `variant`, user_id, event_time, CAST(NULL AS STRING) AS converted
            FROM exposures
            UNION ALL
            SELECT e.experiment, e.`variant`, e.user_id, e.event_time, c.user_id
            FROM exposures AS e
            JOIN conversions AS c
                ON c.user_id = e.user_id
                AND c.event_time BETWEEN e.event_time AND e.event_time + INTERVAL '1' HOUR)
        SELECT experiment, `variant`, window_start, window_end,
            COUNT(DISTINCT user_id), COUNT(DISTINCT converted),
            CAST(COUNT(DISTINCT converted) AS DOUBLE) / COUNT(DISTINCT user_id)
        FROM TABLE(TUMBLE(TABLE outcomes, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
        GROUP BY experiment, `variant`, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    settled_after=CONVERSION_WINDOW,
    description="Conversions, to whatever goal, by variant and hour of exposure, told once all had "
    "their hour.",
)

EXPERIMENT_GOALS = QueryView(
    name="experiment_goals",
    sources=(EXPOSURES, CONVERSIONS),
    key_columns=("experiment", "variant", "goal"),
    query_columns=(
        _EXPERIMENT,
        _VARIANT,
        Column("goal", ColumnType.STRING, doc="What the users did."),
        Column(
            "converted_users", ColumnType.LONG, doc="Users who did so within an hour after seeing."
        ),
    ),
    sql="""
        SELECT e.experiment, e.`variant`, c.goal, COUNT(DISTINCT c.user_id)
        FROM exposures AS e
        JOIN conversions AS c
            ON c.user_id = e.user_id
            AND c.event_time BETWEEN e.event_time AND e.event_time + INTERVAL '1' HOUR
        GROUP BY e.experiment, e.`variant`, c.goal
    """,
    grows=("converted_users",),
    state_retention=REMEMBERED,
    description="Each variant's conversions by goal so far; who reached several counts in each. "
    f"`experiment_results` has how many saw the variant. A user who is seen for more than "
    f"{REMEMBERED.days} days is counted again.",
)

JOB = Job(
    "experiments",
    (EXPOSURES, CONVERSIONS),
    (EXPERIMENT_RESULTS, EXPERIMENT_RESULTS_PER_HOUR, EXPERIMENT_GOALS),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
