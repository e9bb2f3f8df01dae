"""Card payments: what each user spends, and which payments look like fraud."""

from __future__ import annotations

from datetime import timedelta

from jobs.plan import whole_ms
from jobs.views import ArrivalView, Job, Sliding, WindowView
from schemas.columns import Column, ColumnType
from schemas.streams import TRANSACTIONS
from udfs.measures import Count, Mean, Sum

PAUSE = timedelta(days=90)
"""A user who makes no transaction for longer is judged as if there had been none before.

So long after the newest of the four before it, for one of long ago may come late and is no pause.
State ends after twice as long by the clock. An event finds another history than a replay would give
it only if it comes a `PAUSE` late.
"""

USER_SPENDING = WindowView(
    name="user_spending",
    stream=TRANSACTIONS,
    dimensions=("user_id",),
    window=Sliding(timedelta(minutes=5), timedelta(minutes=1)),
    measures={
        "transactions": Count(doc="Transactions in the window."),
        "total_cents": Sum("amount_cents", doc="What was paid in all, cents."),
        "average_cents": Mean("amount_cents", doc="What was paid on average, cents."),
    },
    retention=timedelta(days=2 * 365),
    description="What each user spent over the last five minutes, each minute anew; a transaction "
    "sent twice counts twice.",
)

_USER = Column("user_id", ColumnType.STRING, doc="The holder of the card.")
_CARD = Column("card_id", ColumnType.STRING, doc="The card.")
_TRANSACTION = Column("transaction_id", ColumnType.STRING, doc="The transaction's `event_id`.")
_TIME = Column("event_time", ColumnType.TIMESTAMP, doc="When the card was used.")
_SCORE = Column("score", ColumnType.DOUBLE, doc="Sum of the reasons' weights, above 0.8.")
_REASONS = Column(
    "reasons",
    ColumnType.STRING,
    doc="`amount` (0.4): over 5 times the average of the user's last 20. `distance` (0.5): over "
    "1,000 km from the previous place within an hour. `frequency` (0.3): no more "
    "than 5 minutes from the user's fourth transaction before it, as they arrived.",
)

FRAUD_ALERTS = ArrivalView(
    name="fraud_alerts",
    sources=(TRANSACTIONS,),
    key_columns=("transaction_id",),
    query_columns=(
        _TRANSACTION,
        _USER,
        _CARD,
        _TIME,
        Column("amount_cents", ColumnType.LONG, doc="What was to be paid, cents."),
        _SCORE,
        _REASONS,
    ),
    # Sums since the beginning make the last 20 a difference of two, and everything one small row
    # of state a user. What stands before a long pause is left out by the event times, so that it
    # makes no difference whether its state has ended. Scores are whole tenths, so that 0.8 is 0.8.
    sql=f"""
        WITH placed AS (
            SELECT *,
                CASE WHEN longitude IS NOT NULL THEN latitude END AS place_north,
                CASE WHEN latitude IS NOT NULL THEN longitude END AS place_east,
                CASE WHEN latitude IS NOT NULL AND longitude IS NOT NULL
                    THEN event_ms END AS place_ms
            FROM transactions_arrivals),
        so_far AS (
            SELECT *,
                COUNT(*) OVER by_user AS number,
                SUM(amount_cents) OVER by_user AS spent,
                LAST_VALUE(place_north) OVER by_user AS north,
                LAST_VALUE(place_east) OVER by_user AS east,
                LAST_VALUE(place_ms) OVER by_user AS there_ms,
                event_ms - GREATEST(
                    COALESCE(LAG(event_ms, 1) OVER by_user, 0),
                    COALESCE(LAG(event_ms, 2) OVER by_user, 0),
                    COALESCE(LAG(event_ms, 3) OVER by_user, 0),
                    COALESCE(LAG(event_ms, 4) OVER by_user, 0)) > {whole_ms(PAUSE)} AS is_back,
                event_ms - LAG(event_ms, 4) OVER by_user AS five_ms
            FROM placed
            WINDOW by_user AS (PARTITION BY user_id ORDER BY arrived)),
        compared AS (
            SELECT *,
                LAST_VALUE(CASE WHEN is_back THEN number - 1 END) OVER by_user AS forgotten,
                LAST_VALUE(CASE WHEN is_back THEN spent - amount_cents END)
                    OVER by_user AS forgotten_cents,
                LAG(spent, 21) OVER by_user AS before_20_cents,
                place_ms - LAG(there_ms, 1) OVER by_user AS moved_ms,
                RADIANS(place_north) AS n2, RADIANS(LAG(north, 1) OVER by_user) AS n1,
                RADIANS(place_east) AS e2, RADIANS(LAG(east, 1) OVER by_user) AS e1
            FROM so_far
            WINDOW by_user AS (PARTITION BY user_id ORDER BY arrived)),
        remembered AS (
            SELECT *,
                LEAST(number - 1 - COALESCE(forgotten, 0), 20) AS earlier,
                spent - amount_cents - IF(number - 1 - COALESCE(forgotten, 0) > 20,
                    before_20_cents, COALESCE(forgotten_cents, 0)) AS earlier_cents
            FROM compared),
        judged AS (
            SELECT *,
                earlier > 0 AND amount_cents * earlier > 5 * earlier_cents AS is_much,
                ABS(moved_ms) <= 3600000 AND 2 * 6371 * ASIN(SQRT(LEAST(1,
                    POWER(SIN((n2 - n1) / 2), 2)
                    + COS(n1) * COS(n2) * POWER(SIN((e2 - e1) / 2), 2)))) > 1000 AS is_far,
                ABS(five_ms) <= 300000 AS is_often
            FROM remembered),
        scored AS (
            SELECT *, IF(is_much, 4, 0) + IF(is_far, 5, 0) + IF(is_often, 3, 0) AS tenths
            FROM judged)
        SELECT event_id, user_id, card_id, event_time, amount_cents,
            tenths / CAST(10 AS DOUBLE),
            CONCAT_WS(', ',
                CASE WHEN is_much THEN 'amount' END,
                CASE WHEN is_far THEN 'distance' END,
                CASE WHEN is_often THEN 'frequency' END)
        FROM scored WHERE tenths > 8
    """,
    time_columns=("event_time", "event_time"),
    state_retention=2 * PAUSE,
    description=f"Transactions that look like fraud, told as they arrive; after a pause of more "
    f"than {PAUSE.days} days a user's history begins anew. A transaction sent twice counts twice "
    "in it. Once a partition was added, a rebuild may find users' events in another order, and so "
    "other alerts.",
)

CARD_BLOCKS = ArrivalView(
    name="card_blocks",
    sources=(TRANSACTIONS,),
    key_columns=("card_id", "transaction_id"),
    query_columns=(_CARD, _TRANSACTION, _USER, _TIME, _SCORE, _REASONS),
    sql="""
        SELECT card_id, transaction_id, user_id, event_time, score, reasons FROM fraud_alerts
    """,
    time_columns=("event_time", "event_time"),
    description="Orders to block a card, one for each alert; obeying one twice does no harm. Once "
    "a partition was added, a rebuild may give others, as alerts do.",
)

JOB = Job(
    "transactions",
    (TRANSACTIONS,),
    (USER_SPENDING, FRAUD_ALERTS, CARD_BLOCKS),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
