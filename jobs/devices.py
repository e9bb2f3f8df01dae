"""Device readings: each device's health by the minute, its alerts, and when it went quiet."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import DEVICE_READINGS

_DEVICE = Column("device_id", ColumnType.STRING, doc="The device.")

DEVICE_HEALTH_PER_MINUTE = QueryView(
    name="device_health_per_minute",
    sources=(DEVICE_READINGS,),
    key_columns=("window_start", "device_id"),
    query_columns=(
        _DEVICE,
        Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the minute."),
        Column("window_end", ColumnType.TIMESTAMP, doc="First instant after the minute."),
        Column("readings", ColumnType.LONG, doc="Readings in the minute."),
        Column("min_temperature", ColumnType.DOUBLE, doc="Lowest reading, degrees Celsius."),
        Column("max_temperature", ColumnType.DOUBLE, doc="Highest reading, degrees Celsius."),
        Column("mean_temperature", ColumnType.DOUBLE, doc="Mean reading, degrees Celsius."),
        Column("stddev_temperature", ColumnType.DOUBLE, doc="Their population standard deviation."),
        Column("gaps", ColumnType.LONG, doc="Six less the readings, wherever they lie in it."),
    ),
    # Sums of decimals are exact: whatever order the readings come in, the row is the same.
    sql="""
        WITH measured AS (
            SELECT device_id, event_time, CAST(temperature AS DECIMAL(9, 3)) AS t
            FROM device_readings)
        SELECT device_id, window_start, window_end,
            COUNT(*), MIN(t), MAX(t),
            CAST(SUM(t) AS DOUBLE) / COUNT(*),
            SQRT(CAST(COUNT(*) * SUM(t * t) - SUM(t) * SUM(t) AS DOUBLE)) / COUNT(*),
            GREATEST(6 - COUNT(*), 0)
        FROM TABLE(TUMBLE(TABLE measured, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        GROUP BY device_id, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    description="What each device measured minute by minute, and how many readings are missing of "
    "the minutes with one; a minute without any has no row (see `devices_quiet`).",
)

DEVICE_ALERTS = QueryView(
    name="device_alerts",
    sources=(DEVICE_READINGS,),
    key_columns=("kind", "device_id", "alert_time"),
    query_columns=(
        Column("kind", ColumnType.STRING, doc="`too_hot` or `rising_then_silent`."),
        _DEVICE,
        Column("alert_time", ColumnType.TIMESTAMP, doc="The reading that the alert is about."),
        Column("temperature", ColumnType.DOUBLE, doc="What it measured, degrees Celsius."),
    ),
    # The end of a session stands for the silence after its last reading: a row without temperature.
    sql="""
        WITH signals AS (
            SELECT device_id, event_time, event_ms, event_id, temperature FROM device_readings
            UNION ALL
            SELECT device_id, window_time, CAST(NULL AS BIGINT), '', CAST(NULL AS DOUBLE)
            FROM TABLE(SESSION(
                TABLE device_readings PARTITION BY device_id,
                DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
            GROUP BY device_id, window_start, window_end, window_time)
        SELECT 'rising_then_silent', device_id, alert_time, temperature
        FROM signals MATCH_RECOGNIZE (
            PARTITION BY device_id
            ORDER BY event_time, event_id
            MEASURES
                TO_TIMESTAMP_LTZ(HIGHEST.event_ms, 3) AS alert_time,
                HIGHEST.temperature AS temperature
            ONE ROW PER MATCH
            AFTER MATCH SKIP PAST LAST ROW
            PATTERN (HOT HOTTER HIGHEST SILENCE) WITHIN INTERVAL '5' MINUTE
            DEFINE
                HOT AS HOT.temperature > 70,
                HOTTER AS HOTTER.temperature > HOT.temperature,
                HIGHEST AS HIGHEST.temperature > HOTTER.temperature,
                SILENCE AS SILENCE.temperature IS NULL)
        UNION ALL
        SELECT 'too_hot', device_id, TO_TIMESTAMP_LTZ(event_ms, 3), temperature
        FROM (
            SELECT *, ROW_NUMBER() OVER (
                PARTITION BY device_id, window_start, window_end
                ORDER BY event_ms, event_id) AS place
            FROM TABLE(TUMBLE(TABLE device_readings, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
            WHERE temperature > 90)
        WHERE place = 1
    """,
    time_columns=("alert_time", "alert_time"),
    settled_after=timedelta(minutes=6),
    description="Devices above 90 °C, once a minute with the first such reading, and those that "
    "fell silent above 70 °C after three rising ones. Silence is found by later readings of any "
    "device.",
)

DEVICES_QUIET = QueryView(
    name="devices_quiet",
    sources=(DEVICE_READINGS,),
    key_columns=("device_id", "quiet_since"),
    query_columns=(
        _DEVICE,
        Column("quiet_since", ColumnType.TIMESTAMP, doc="The last reading before the silence."),
        Column("active_since", ColumnType.TIMESTAMP, doc="First reading with no silence since."),
        Column("readings", ColumnType.LONG, doc="Readings from the one to the other."),
    ),
    sql="""
        SELECT device_id,
            TO_TIMESTAMP_LTZ(MAX(event_ms), 3), TO_TIMESTAMP_LTZ(MIN(event_ms), 3), COUNT(*)
        FROM TABLE(SESSION(
            TABLE device_readings PARTITION BY device_id,
            DESCRIPTOR(event_time), INTERVAL '5' MINUTE))
        GROUP BY device_id, window_start, window_end
    """,
    time_columns=("active_since", "quiet_since"),
    settled_after=timedelta(minutes=5),
    description="Each time a device sent nothing for more than five minutes, found by later "
    "readings of any device: while all are silent, none is told of.",
)

JOB = Job(
    "devices",
    (DEVICE_READINGS,),
    (DEVICE_HEALTH_PER_MINUTE, DEVICE_ALERTS, DEVICES_QUIET),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
