"""Posts: which hashtags are named the most of late, and which of them rise."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import WINDOW_END, WINDOW_START, Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import POSTS

TOP_HASHTAGS = 10

TRENDING_HASHTAGS = QueryView(
    name="trending_hashtags",
    sources=(POSTS,),
    key_columns=("window_start", "rank"),
    query_columns=(
        WINDOW_START,
        WINDOW_END,
        Column("rank", ColumnType.LONG, doc=f"1 to {TOP_HASHTAGS}; of equals the lesser text."),
        Column("hashtag", ColumnType.STRING, doc="The hashtag, in lower case."),
        Column("posts", ColumnType.LONG, doc="Posts that name it, each once."),
        Column("posts_change", ColumnType.LONG, doc="How many more than in the window before."),
        Column(
            "rank_change",
            ColumnType.LONG,
            nullable=True,
            doc="By how many ranks it rose since the window before; null where it had none there.",
        ),
    ),
    # Windows end a minute apart. So a hashtag's rows of one minute back are those of its window and
    # of the one before, and each minute holds the ends of exactly one window, which are ranked.
    sql=f"""
        WITH named AS (
            SELECT event_time, event_id, LOWER(tag) AS hashtag
            FROM posts CROSS JOIN UNNEST(hashtags) AS tags (tag)
            WHERE tag <> ''),
        counted AS (
            SELECT hashtag, window_time AS counted_at, COUNT(DISTINCT event_id) AS mentions
            FROM TABLE(HOP(
                TABLE named, DESCRIPTOR(event_time), INTERVAL '1' MINUTE, INTERVAL '10' MINUTE))
            GROUP BY hashtag, window_start, window_end, window_time),
        compared AS (
            SELECT hashtag, counted_at, mentions,
                SUM(mentions) OVER (
                    PARTITION BY hashtag ORDER BY counted_at
                    RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW) AS in_both
            FROM counted),
        ranked AS (
            SELECT hashtag, counted_at, window_end, mentions, in_both,
                ROW_NUMBER() OVER (
                    PARTITION BY window_start, window_end ORDER BY mentions DESC, hashtag) AS place
            FROM TABLE(TUMBLE(TABLE compared, DESCRIPTOR(counted_at), INTERVAL '1' MINUTE))),
        leaders AS (
            SELECT hashtag, window_end, mentions, in_both, place,
                SUM(place) OVER (
                    PARTITION BY hashtag ORDER BY counted_at
                    RANGE BETWEEN INTERVAL '1' MINUTE PRECEDING AND CURRENT ROW) AS both_places
            FROM ranked
            WHERE place <= {TOP_HASHTAGS})
        SELECT window_end - INTERVAL '10' MINUTE, window_end, place, hashtag, mentions,
            2 * mentions - in_both,
            NULLIF(both_places - place, 0) - place
        FROM leaders
    """,
    time_columns=("window_start", "window_end"),
    retention=timedelta(days=365),
    description=f"The {TOP_HASHTAGS} hashtags that most posts of ten minutes name, each minute "
    "anew, and how they changed since the minute before.",
)

JOB = Job(
    "posts",
    (POSTS,),
    (TRENDING_HASHTAGS,),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
