"""Nexmark's queries, each a job of one view: `queries.py --query q5`.

q12 counts bids in windows of the clock. No view here may look at the clock: what a rebuild gives
would differ from what was. In its place stands the same count in windows of event time.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from bench.nexmark.streams import AUCTIONS, BIDS, PERSONS
from jobs.views import (
    SOURCE_FIELDS,
    WINDOW_END,
    WINDOW_START,
    Job,
    QueryView,
    Sliding,
    Tumbling,
    View,
    WindowView,
)
from schemas.columns import Column, ColumnType
from udfs.measures import Count, Max

_TEN_SECONDS = Tumbling(timedelta(seconds=10))
_WINDOW_TIMES = (WINDOW_START.name, WINDOW_END.name)
_AUCTION = Column("auction", ColumnType.STRING, doc="The auction.")
_BIDDER = Column("bidder", ColumnType.STRING, doc="Who bids.")
_PRICE = Column("price", ColumnType.LONG, doc="How much, cents.")
_BIDS = Column("num", ColumnType.LONG, doc="How many bids.")

Q0 = QueryView(
    name="nexmark_q0",
    sources=(BIDS,),
    key_columns=SOURCE_FIELDS,
    query_columns=(
        Column("source_partition", ColumnType.LONG, doc="Where in Kafka the bid is: partition."),
        Column("source_offset", ColumnType.LONG, doc="Where in Kafka the bid is: offset."),
        _AUCTION,
        _BIDDER,
        _PRICE,
        Column("event_ms", ColumnType.LONG, doc="When, epoch milliseconds."),
        Column("url", ColumnType.STRING, doc="The page it was made on."),
    ),
    sql="""
        SELECT source_partition, source_offset, auction, bidder, price, event_ms, url
        FROM nexmark_bids
    """,
    description="Pass through: each bid as it is.",
)

Q5 = QueryView(
    name="nexmark_q5",
    sources=(BIDS,),
    key_columns=(WINDOW_START.name,),
    query_columns=(WINDOW_START, WINDOW_END, _AUCTION, _BIDS),
    # Of auctions with equally many bids the lesser id counts; Nexmark's own tells of all.
    sql="""
        WITH counted AS (
            SELECT auction, window_start, window_end, COUNT(*) AS num
            FROM TABLE(HOP(
                TABLE nexmark_bids, DESCRIPTOR(event_time), INTERVAL '2' SECOND,
                INTERVAL '10' SECOND))
            GROUP BY auction, window_start, window_end)
        SELECT window_start, window_end, auction, num
        FROM (
            SELECT *, ROW_NUMBER() OVER (
                PARTITION BY window_start, window_end ORDER BY num DESC, auction) AS place
            FROM counted)
        WHERE place = 1
    """,
    time_columns=_WINDOW_TIMES,
    description="Hot items: the auction with the most bids of ten seconds, every two seconds.",
)

Q5_COUNTS = WindowView(
    name="nexmark_q5_counts",
    stream=BIDS,
    dimensions=("auction",),
    window=Sliding(timedelta(seconds=10), timedelta(seconds=2)),
    measures={"num": Count()},
    description="What q5 ranks: the bids for each auction in ten seconds, every two seconds.",
)

Q7 = QueryView(
    name="nexmark_q7",
    sources=(BIDS,),
    key_columns=(WINDOW_START.name,),
    query_columns=(WINDOW_START, WINDOW_END, _PRICE, _AUCTION, _BIDDER),
    # Of bids that are equally high one counts; Nexmark's own tells of all.
    sql="""
        SELECT window_start, window_end, price, auction, bidder
        FROM (
            SELECT *, ROW_NUMBER() OVER (
                PARTITION BY window_start, window_end
                ORDER BY price DESC, auction, bidder) AS place
            FROM TABLE(TUMBLE(
                TABLE nexmark_bids, DESCRIPTOR(event_time), INTERVAL '10' SECOND)))
        WHERE place = 1
    """,
    time_columns=_WINDOW_TIMES,
    description="The highest bid of each ten seconds, whose and for what.",
)

Q7_PRICES = WindowView(
    name="nexmark_q7_prices",
    stream=BIDS,
    dimensions=(),
    window=_TEN_SECONDS,
    measures={"price": Max("price")},
    description="The highest price of each ten seconds, without the bid it is of.",
)

Q8 = QueryView(
    name="nexmark_q8",
    sources=(PERSONS, AUCTIONS),
    key_columns=("id", WINDOW_START.name),
    query_columns=(
        Column("id", ColumnType.STRING, doc="The person."),
        Column("name", ColumnType.STRING, doc="What they are called."),
        WINDOW_START,
        WINDOW_END,
    ),
    sql="""
        WITH joined AS (
            SELECT id, name, window_start, window_end
            FROM TABLE(TUMBLE(
                TABLE nexmark_persons, DESCRIPTOR(event_time), INTERVAL '10' SECOND))
            GROUP BY id, name, window_start, window_end),
        selling AS (
            SELECT seller, window_start, window_end
            FROM TABLE(TUMBLE(
                TABLE nexmark_auctions, DESCRIPTOR(event_time), INTERVAL '10' SECOND))
            GROUP BY seller, window_start, window_end)
        SELECT p.id, p.name, p.window_start, p.window_end
        FROM joined AS p
        JOIN selling AS a
            ON p.id = a.seller
            AND p.window_start = a.window_start
            AND p.window_end = a.window_end
    """,
    time_columns=_WINDOW_TIMES,
    description="New users: who joined and opened an auction within the same ten seconds.",
)

Q11 = QueryView(
    name="nexmark_q11",
    sources=(BIDS,),
    key_columns=("bidder", "session_start"),
    query_columns=(
        _BIDDER,
        _BIDS,
        Column("session_start", ColumnType.TIMESTAMP, doc="When the first bid was made."),
        Column("session_end", ColumnType.TIMESTAMP, doc="Ten seconds after the last bid."),
    ),
    sql="""
        SELECT bidder, COUNT(*), window_start, window_end
        FROM TABLE(SESSION(
            TABLE nexmark_bids PARTITION BY bidder, DESCRIPTOR(event_time), INTERVAL '10' SECOND))
        GROUP BY bidder, window_start, window_end
    """,
    time_columns=("session_start", "session_end"),
    description="How many bids each bidder makes without a pause of ten seconds.",
)

Q12_EVENT_TIME = WindowView(
    name="nexmark_q12_event_time",
    stream=BIDS,
    dimensions=("bidder",),
    window=_TEN_SECONDS,
    measures={"num": Count()},
    description="How many bids each bidder makes in ten seconds, by when they were made.",
)


def _job(view: View) -> Job:
    return Job(view.name, view.streams, (view,))


QUERIES: dict[str, Job] = {
    "q0": _job(Q0),
    "q5": _job(Q5),
    "q5_counts": _job(Q5_COUNTS),
    "q7": _job(Q7),
    "q7_prices": _job(Q7_PRICES),
    "q8": _job(Q8),
    "q11": _job(Q11),
    "q12_event_time": _job(Q12_EVENT_TIME),
}


def main() -> None:
    """Run the query that the command line names."""
    from jobs import run

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--query", choices=QUERIES, required=True)
    known, sys.argv[1:] = parser.parse_known_args()
    run.main(QUERIES[known.query])


if __name__ == "__main__":
    main()
