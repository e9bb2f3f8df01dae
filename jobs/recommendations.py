"""Recommendations: which items the viewers of an item look at too."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import ITEM_VIEWS

RELATED_ITEMS = QueryView(
    name="related_items",
    sources=(ITEM_VIEWS,),
    key_columns=("window_start", "item_id", "place"),
    query_columns=(
        Column("item_id", ColumnType.STRING, doc="The item."),
        Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the hour looked at."),
        Column("window_end", ColumnType.TIMESTAMP, doc="First instant after it."),
        Column("place", ColumnType.LONG, doc="1 for the item most often seen with it, to 5."),
        Column("related_item_id", ColumnType.STRING, doc="An item that its viewers saw too."),
        Column("common_viewers", ColumnType.LONG, doc="Users who saw both within half an hour."),
    ),
    # Of items with equally many common viewers the lesser name comes first.
    sql="""
        WITH pairs AS (
            SELECT a.item_id, b.item_id AS related_item_id, a.user_id, a.event_time
            FROM item_views AS a
            JOIN item_views AS b
                ON b.user_id = a.user_id
                AND b.item_id <> a.item_id
                AND b.event_time BETWEEN a.event_time - INTERVAL '30' MINUTE
                                     AND a.event_time + INTERVAL '30' MINUTE),
        together AS (
            SELECT item_id, related_item_id, window_start, window_end,
                COUNT(DISTINCT user_id) AS common_viewers
            FROM TABLE(HOP(
                TABLE pairs, DESCRIPTOR(event_time), INTERVAL '15' MINUTE, INTERVAL '1' HOUR))
            GROUP BY item_id, related_item_id, window_start, window_end)
        SELECT item_id, window_start, window_end, place, related_item_id, common_viewers
        FROM (
            SELECT *, ROW_NUMBER() OVER (
                PARTITION BY window_start, window_end, item_id
                ORDER BY common_viewers DESC, related_item_id) AS place
            FROM together)
        WHERE place <= 5
    """,
    time_columns=("window_start", "window_end"),
    settled_after=timedelta(minutes=30),
    description="For each item the five most often seen with it, each quarter of an hour anew.",
)

JOB = Job(
    "recommendations",
    (ITEM_VIEWS,),
    (RELATED_ITEMS,),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
