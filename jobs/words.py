"""Words: how often each occurs in a topic of texts."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import WORDS

WORD_COUNTS = QueryView(
    name="word_counts",
    sources=(WORDS,),
    key_columns=("word",),
    query_columns=(
        Column("word", ColumnType.STRING, doc="The word, in lower case."),
        Column("occurrences", ColumnType.LONG, doc="How often it came."),
    ),
    sql=r"""
        SELECT word, COUNT(*)
        FROM (
            SELECT REGEXP_EXTRACT_ALL(LOWER(text), '([\p{L}\p{N}][\p{L}\p{M}\p{N}]*)') AS found
            FROM words)
            CROSS JOIN UNNEST(found) AS token (word)
        GROUP BY word
    """,
    grows=("occurrences",),
    state_retention=timedelta(days=365),
    description="How often each word occurs; one that does not for a year is counted anew.",
)

JOB = Job(
    "words",
    (WORDS,),
    (WORD_COUNTS,),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
