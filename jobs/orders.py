"""Orders and payments: who paid, who did not, what is sold to whom, and how far orders get."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jobs.views import WINDOW_END, WINDOW_START, Job, JoinView, Keeps, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import CUSTOMER_SEGMENTS, ORDERS, PAYMENTS
from udfs.joins import Apart, Left, Right

PAYMENT_WINDOW = timedelta(minutes=1)

_KEPT = timedelta(days=5 * 365)
_CUSTOMER_ID = Column("customer_id", ColumnType.STRING, doc="The customer.")

_TOGETHER: dict[str, Any] = {
    "left": ORDERS,
    "right": PAYMENTS,
    "on": "order_id",
    # Before or after: the clocks of shop and payment provider are not the same.
    "before": PAYMENT_WINDOW,
    "after": PAYMENT_WINDOW,
    "left_where": {"status": "placed"},
}
"""What makes an order and a payment a pair."""

ORDER_PAYMENTS = JoinView(
    name="order_payments",
    **_TOGETHER,
    key_columns=("payment_id",),
    values={
        "payment_id": Right("payment_id", doc="The payment."),
        "order_id": Left("order_id", doc="The order."),
        "customer_id": Left("customer_id", doc="The customer."),
        "ordered_at": Left("event_time", doc="When the order was placed."),
        "paid_at": Right("event_time", doc="When the payment was confirmed."),
        "ordered_cents": Left("amount_cents", doc="The price of the order."),
        "paid_cents": Right("paid_cents", doc="What was paid."),
        "delay_ms": Apart(doc="From order to payment; negative where it led."),
    },
    instants=("ordered_at", "paid_at"),
    description="Each payment with its order, where they are at most a minute apart.",
)

UNMATCHED_ORDERS = JoinView(
    name="unmatched_orders",
    **_TOGETHER,
    keeps=Keeps.LEFT_ALONE,
    key_columns=("order_id",),
    values={
        "order_id": Left("order_id", doc="The order."),
        "customer_id": Left("customer_id", doc="The customer."),
        "ordered_at": Left("event_time", doc="When the order was placed."),
        "ordered_cents": Left("amount_cents", doc="The price of the order."),
    },
    instants=("ordered_at", "ordered_at"),
    description="Orders without a payment within a minute, told once newer orders and payments "
    "make that sure.",
)

UNMATCHED_PAYMENTS = JoinView(
    name="unmatched_payments",
    **_TOGETHER,
    keeps=Keeps.RIGHT_ALONE,
    key_columns=("payment_id",),
    values={
        "payment_id": Right("payment_id", doc="The payment."),
        "order_id": Right("order_id", doc="The order."),
        "paid_at": Right("event_time", doc="When the payment was confirmed."),
        "paid_cents": Right("paid_cents", doc="What was paid."),
    },
    instants=("paid_at", "paid_at"),
    description="Payments without an order within a minute, told once newer orders and payments "
    "make that sure.",
)

REVENUE_PER_MINUTE = QueryView(
    name="revenue_per_minute",
    sources=(ORDERS, PAYMENTS),
    key_columns=("window_start",),
    query_columns=(
        WINDOW_START,
        WINDOW_END,
        Column(
            "payments",
            ColumnType.LONG,
            doc="Payments within a minute of their order. A later one is in `unmatched_payments` "
            "and never here.",
        ),
        Column("revenue_cents", ColumnType.LONG, doc="What they paid in all."),
    ),
    # An order sent twice gives its payment two rows.
    sql="""
        WITH paid_orders AS (
            SELECT p.payment_id, p.paid_cents, p.event_time
            FROM orders AS o
            JOIN payments AS p
                ON p.order_id = o.order_id
                AND p.event_time BETWEEN o.event_time - INTERVAL '1' MINUTE
                                     AND o.event_time + INTERVAL '1' MINUTE
            WHERE o.status = 'placed'),
        each_payment AS (
            SELECT window_start, window_end, MAX(paid_cents) AS paid
            FROM TABLE(TUMBLE(TABLE paid_orders, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
            GROUP BY payment_id, window_start, window_end)
        SELECT window_start, window_end, COUNT(*), SUM(paid)
        FROM each_payment
        GROUP BY window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    settled_after=PAYMENT_WINDOW,
    description="What paid orders brought in, by the minute of payment; events sent twice count "
    "once.",
)

# An event sent twice has the same time, so the least window tells, and ends its state at once.
_EACH_EVENT = """
            SELECT *, ROW_NUMBER() OVER (
                PARTITION BY window_start, window_end, event_id ORDER BY event_time) AS told
            FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(event_time), INTERVAL '1' SECOND))"""

DAILY_SALES = QueryView(
    name="daily_sales",
    sources=(ORDERS,),
    key_columns=("sales_day", "category"),
    query_columns=(
        Column("sales_day", ColumnType.TIMESTAMP, doc="Midnight before the orders, UTC."),
        Column("category", ColumnType.STRING, doc="Category of the goods."),
        Column("sales_cents", ColumnType.LONG, doc="Orders placed less what was paid back."),
        Column("orders_placed", ColumnType.LONG, doc="Orders placed on the day."),
        Column("refunds", ColumnType.LONG, doc="Refunds of those orders, whenever made."),
        Column("refunded_cents", ColumnType.LONG, doc="What the refunds paid back."),
    ),
    sql=f"""
        WITH each_event AS ({_EACH_EVENT})
        SELECT FLOOR(placed_at TO DAY), category,
            SUM(IF(status = 'placed', amount_cents, -amount_cents)),
            COUNT(*) FILTER (WHERE status = 'placed'),
            COUNT(*) FILTER (WHERE status = 'refunded'),
            SUM(IF(status = 'refunded', amount_cents, 0))
        FROM each_event
        WHERE told = 1 AND status IN ('placed', 'refunded')
        GROUP BY FLOOR(placed_at TO DAY), category
    """,
    grows=("orders_placed", "refunds", "refunded_cents"),
    state_retention=_KEPT,
    description="Sales by category and day of order; a refund corrects the day it belongs to. An "
    "event sent twice, with the same id and time, counts once. A day's category that changes again "
    "after five years without a change is counted anew.",
)

CUSTOMER_ORDERS = QueryView(
    name="customer_orders",
    sources=(ORDERS,),
    key_columns=("customer_id",),
    query_columns=(
        _CUSTOMER_ID,
        Column("orders_placed", ColumnType.LONG, doc="Orders so far."),
        Column("total_cents", ColumnType.LONG, doc="Their price in all."),
        Column("average_cents", ColumnType.DOUBLE, doc="The mean price of an order."),
        Column("last_order_at", ColumnType.TIMESTAMP, doc="When the newest was placed."),
    ),
    sql=f"""
        WITH each_event AS ({_EACH_EVENT})
        SELECT customer_id, COUNT(*), SUM(amount_cents),
            CAST(SUM(amount_cents) AS DOUBLE) / COUNT(*),
            TO_TIMESTAMP_LTZ(MAX(event_ms), 3)
        FROM each_event
        WHERE told = 1 AND status = 'placed'
        GROUP BY customer_id
    """,
    grows=("orders_placed", "total_cents", "last_order_at"),
    state_retention=_KEPT,
    description="How often, and for how much, each customer has ordered. An event sent twice, with "
    "the same id and time, counts once. A customer who orders again after five years without an "
    "order is counted anew.",
)

ORDER_FUNNEL = QueryView(
    name="order_funnel",
    sources=(ORDERS, PAYMENTS),
    key_columns=("window_start", "stage"),
    query_columns=(
        Column("stage", ColumnType.STRING, doc="placed, paid, shipped, delivered or refunded."),
        WINDOW_START,
        WINDOW_END,
        Column(
            "orders_reached",
            ColumnType.LONG,
            doc="Orders that reached the stage; paid are those that payments name, known or not.",
        ),
    ),
    sql="""
        WITH steps AS (
            SELECT order_id, status AS stage, event_time FROM orders
            UNION ALL
            SELECT order_id, 'paid', event_time FROM payments)
        SELECT stage, window_start, window_end, COUNT(DISTINCT order_id)
        FROM TABLE(TUMBLE(TABLE steps, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
        GROUP BY stage, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    description="How many orders reached each stage, hour by hour.",
)

CURRENT_SEGMENTS = QueryView(
    name="current_segments",
    sources=(CUSTOMER_SEGMENTS,),
    key_columns=("customer_id",),
    query_columns=(
        _CUSTOMER_ID,
        Column("segment", ColumnType.STRING, doc="The customer's newest segment."),
        Column(
            "since",
            ColumnType.TIMESTAMP,
            doc="Time of the newest event that told it, also where it told the same again.",
        ),
    ),
    sql="""
        SELECT customer_id, segment, event_time
        FROM (
            SELECT *,
                ROW_NUMBER() OVER (PARTITION BY customer_id ORDER BY event_time DESC) AS place
            FROM customer_segments)
        WHERE place = 1
    """,
    grows=("since",),
    state_retention=_KEPT,
    description="The segment that each customer is in, known as soon as it changes.",
)

SALES_BY_SEGMENT = QueryView(
    name="sales_by_segment",
    sources=(ORDERS, CUSTOMER_SEGMENTS),
    key_columns=("window_start", "segment"),
    query_columns=(
        Column("segment", ColumnType.STRING, doc='Segment at the time of order, or "unknown".'),
        WINDOW_START,
        WINDOW_END,
        Column("orders_placed", ColumnType.LONG, doc="Orders placed."),
        Column("sales_cents", ColumnType.LONG, doc="Their price in all."),
    ),
    sql="""
        WITH segment_orders AS (
            SELECT COALESCE(s.segment, 'unknown') AS segment, o.order_id, o.amount_cents,
                o.event_time
            FROM (SELECT * FROM orders WHERE status = 'placed') AS o
            LEFT JOIN customer_segments_versions FOR SYSTEM_TIME AS OF o.event_time AS s
                ON s.customer_id = o.customer_id),
        each_order AS (
            SELECT segment, window_start, window_end, MAX(amount_cents) AS price
            FROM TABLE(TUMBLE(TABLE segment_orders, DESCRIPTOR(event_time), INTERVAL '1' HOUR))
            GROUP BY order_id, segment, window_start, window_end)
        SELECT segment, window_start, window_end, COUNT(*), SUM(price)
        FROM each_order
        GROUP BY segment, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    description="Sales by the segment that customers were in when they ordered; an order sent "
    "twice counts once. While no segments change, orders do not wait for changes: one told of "
    "later than its time and the orders' lateness holds for later orders only, until a rebuild, "
    "which judges the earlier ones by it as well.",
)

JOB = Job(
    "orders",
    (ORDERS, PAYMENTS, CUSTOMER_SEGMENTS),
    (
        ORDER_PAYMENTS,
        UNMATCHED_ORDERS,
        UNMATCHED_PAYMENTS,
        REVENUE_PER_MINUTE,
        DAILY_SALES,
        CUSTOMER_ORDERS,
        ORDER_FUNNEL,
        CURRENT_SEGMENTS,
        SALES_BY_SEGMENT,
    ),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
