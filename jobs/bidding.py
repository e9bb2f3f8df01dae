"""Real-time bidding: which bids win, what campaigns spend of their budgets, who clicks."""

from __future__ import annotations

from datetime import timedelta

from jobs.views import Job, QueryView
from schemas.columns import Column, ColumnType
from schemas.streams import BID_REQUESTS, BIDS, CLICKS, IMPRESSIONS

WIN_WINDOW = timedelta(minutes=1)
CLICK_WINDOW = timedelta(minutes=10)

_CAMPAIGN = Column("campaign_id", ColumnType.STRING, doc="The campaign.")
_MINUTE_START = Column("window_start", ColumnType.TIMESTAMP, doc="First instant of the minute.")
_MINUTE_END = Column("window_end", ColumnType.TIMESTAMP, doc="First instant after the minute.")

SITES_PER_MINUTE = QueryView(
    name="sites_per_minute",
    sources=(BID_REQUESTS, BIDS),
    key_columns=("window_start", "site"),
    query_columns=(
        Column("site", ColumnType.STRING, doc="Where the advertisement would be shown."),
        _MINUTE_START,
        _MINUTE_END,
        Column("offers", ColumnType.LONG, doc="Places offered in the minute."),
        Column("offers_bid_on", ColumnType.LONG, doc="Of those, with a bid within a minute."),
        Column("bid_rate", ColumnType.DOUBLE, doc="Bid on of offered, 0 to 1."),
    ),
    # Here and below, what has an answer is there twice, and its group knows it by its id: a LEFT
    # JOIN would tell of an id's rows without an answer when the newest of them times out, which may
    # be past the minute.
    sql="""
        WITH offered AS (
            SELECT request_id, site, event_time, CAST(NULL AS STRING) AS bid_on
            FROM bid_requests
            UNION ALL
            SELECT r.request_id, r.site, r.event_time, b.request_id
            FROM bid_requests AS r
            JOIN bids AS b
                ON b.request_id = r.request_id
                AND b.event_time BETWEEN r.event_time AND r.event_time + INTERVAL '1' MINUTE)
        SELECT site, window_start, window_end,
            COUNT(DISTINCT request_id), COUNT(DISTINCT bid_on),
            CAST(COUNT(DISTINCT bid_on) AS DOUBLE) / COUNT(DISTINCT request_id)
        FROM TABLE(TUMBLE(TABLE offered, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        GROUP BY site, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    settled_after=WIN_WINDOW,
    description="How many of the places that each site offers campaigns bid on.",
)

WIN_RATE_PER_MINUTE = QueryView(
    name="win_rate_per_minute",
    sources=(BIDS, IMPRESSIONS),
    key_columns=("window_start", "campaign_id"),
    query_columns=(
        _CAMPAIGN,
        _MINUTE_START,
        _MINUTE_END,
        Column("bids_made", ColumnType.LONG, doc="Bids of the minute."),
        Column("bids_won", ColumnType.LONG, doc="Of those, shown within a minute."),
        Column("win_rate", ColumnType.DOUBLE, doc="Won of made, 0 to 1."),
        Column("mean_bid_micros", ColumnType.DOUBLE, doc="Mean bid."),
    ),
    sql="""
        WITH outcomes AS (
            SELECT campaign_id, request_id, bid_micros, event_time, 0 AS won
            FROM bids
            UNION ALL
            SELECT b.campaign_id, b.request_id, b.bid_micros, b.event_time, 1
            FROM bids AS b
            JOIN impressions AS i
                ON i.request_id = b.request_id
                AND i.campaign_id = b.campaign_id
                AND i.event_time BETWEEN b.event_time AND b.event_time + INTERVAL '1' MINUTE),
        each_bid AS (
            SELECT campaign_id, window_start, window_end, MAX(bid_micros) AS price, MAX(won) AS won
            FROM TABLE(TUMBLE(TABLE outcomes, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
            GROUP BY campaign_id, request_id, window_start, window_end)
        SELECT campaign_id, window_start, window_end, COUNT(*), SUM(won),
            CAST(SUM(won) AS DOUBLE) / COUNT(*),
            CAST(SUM(price) AS DOUBLE) / COUNT(*)
        FROM each_bid
        GROUP BY campaign_id, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    settled_after=WIN_WINDOW,
    description="How many of its bids each campaign wins, minute by minute; a campaign's bids of a "
    "minute for one offer count once.",
)

CLICK_THROUGH_PER_MINUTE = QueryView(
    name="click_through_per_minute",
    sources=(IMPRESSIONS, CLICKS),
    key_columns=("window_start", "campaign_id"),
    query_columns=(
        _CAMPAIGN,
        _MINUTE_START,
        _MINUTE_END,
        Column("shown", ColumnType.LONG, doc="Advertisements shown in the minute."),
        Column("clicked", ColumnType.LONG, doc="Of those, clicked on within ten minutes."),
        Column("click_through_rate", ColumnType.DOUBLE, doc="Clicked of shown, 0 to 1."),
    ),
    # A second click on the same advertisement counts no more.
    sql="""
        WITH outcomes AS (
            SELECT campaign_id, request_id, event_time, CAST(NULL AS STRING) AS clicked
            FROM impressions
            UNION ALL
            SELECT i.campaign_id, i.request_id, i.event_time, c.request_id
            FROM impressions AS i
            JOIN clicks AS c
                ON c.request_id = i.request_id
                AND c.campaign_id = i.campaign_id
                AND c.event_time BETWEEN i.event_time AND i.event_time + INTERVAL '10' MINUTE)
        SELECT campaign_id, window_start, window_end,
            COUNT(DISTINCT request_id), COUNT(DISTINCT clicked),
            CAST(COUNT(DISTINCT clicked) AS DOUBLE) / COUNT(DISTINCT request_id)
        FROM TABLE(TUMBLE(TABLE outcomes, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
        GROUP BY campaign_id, window_start, window_end
    """,
    time_columns=("window_start", "window_end"),
    settled_after=CLICK_WINDOW,
    description="How many of its advertisements are clicked on, by campaign and minute shown.",
)

CAMPAIGN_SPEND_PER_MINUTE = QueryView(
    name="campaign_spend_per_minute",
    sources=(IMPRESSIONS,),
    key_columns=("window_start", "campaign_id"),
    query_columns=(
        _CAMPAIGN,
        _MINUTE_START,
        _MINUTE_END,
        Column("spent_micros", ColumnType.LONG, doc="Spent in the minute."),
        Column("spent_today_micros", ColumnType.LONG, doc="Spent since midnight, UTC."),
        Column("budget_micros", ColumnType.LONG, doc="The day's budget as known then."),
        Column(
            "budget_before_micros",
            ColumnType.LONG,
            nullable=True,
            doc="As known when the campaign spent before; null where it had not on that day.",
        ),
        Column("budget_share", ColumnType.DOUBLE, doc="Spent of the budget; 1 is all of it."),
        Column("minute_of_day", ColumnType.LONG, doc="Minutes since midnight at the window's end."),
    ),
    sql="""
        WITH each_impression AS (
            SELECT campaign_id, window_start, window_end, window_time,
                MAX(price_micros) AS price, MAX(daily_budget_micros) AS known_budget
            FROM TABLE(TUMBLE(TABLE impressions, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
            GROUP BY campaign_id, request_id, window_start, window_end, window_time),
        minutes AS (
            SELECT campaign_id, window_start, window_end, window_time,
                SUM(price) AS spent, MAX(known_budget) AS budget,
                DATE_FORMAT(window_start, 'yyyy-MM-dd') AS budget_day
            FROM each_impression
            GROUP BY campaign_id, window_start, window_end, window_time),
        days AS (
            SELECT campaign_id, window_start, window_end, spent, budget,
                SUM(spent) OVER by_day AS spent_today,
                LAG(budget) OVER by_day AS budget_before
            FROM minutes
            WINDOW by_day AS (PARTITION BY campaign_id, budget_day ORDER BY window_time))
        SELECT campaign_id, window_start, window_end, spent, spent_today, budget, budget_before,
            CAST(spent_today AS DOUBLE) / budget,
            EXTRACT(HOUR FROM window_start) * 60 + EXTRACT(MINUTE FROM window_start) + 1
        FROM days
    """,
    # It ends by the clock, which goes on while the job stands still in the middle of a day.
    state_retention=timedelta(days=32),
    time_columns=("window_start", "window_end"),
    description="What each campaign has spent of its day's budget, minute by minute; of several "
    "budgets told in a minute the greatest counts, and an advertisement told of twice in it once.",
)

PACING_ALERTS = QueryView(
    name="pacing_alerts",
    sources=(IMPRESSIONS,),
    key_columns=("window_start", "campaign_id"),
    query_columns=(
        _CAMPAIGN,
        _MINUTE_START,
        _MINUTE_END,
        Column("spent_today_micros", ColumnType.LONG, doc="Spent since midnight, UTC."),
        Column("even_pace_micros", ColumnType.LONG, doc="What an even pace would have spent."),
        Column("budget_micros", ColumnType.LONG, doc="The day's budget."),
    ),
    # Ahead is a tenth of the budget over the even pace; the minute that gets there alerts. Whether
    # the campaign was ahead before goes by the budget known then: one that is cut alerts, too.
    sql="""
        WITH paces AS (
            SELECT campaign_id, window_start, window_end, spent_micros, spent_today_micros,
                budget_micros,
                budget_micros * minute_of_day / 1440 AS pace,
                budget_micros / 10 AS tolerance,
                COALESCE(budget_before_micros, budget_micros) AS budget_before,
                minute_of_day - 1 AS minutes_before
            FROM campaign_spend_per_minute)
        SELECT campaign_id, window_start, window_end, spent_today_micros, pace, budget_micros
        FROM paces
        WHERE spent_today_micros > pace + tolerance
          AND spent_today_micros - spent_micros
              <= budget_before * minutes_before / 1440 + budget_before / 10
    """,
    time_columns=("window_start", "window_end"),
    description="Campaigns whose spend begins to run ahead: above what an even pace would have "
    "spent and a tenth of the day's budget more.",
)

JOB = Job(
    "bidding",
    (BID_REQUESTS, BIDS, IMPRESSIONS, CLICKS),
    (
        SITES_PER_MINUTE,
        WIN_RATE_PER_MINUTE,
        CLICK_THROUGH_PER_MINUTE,
        CAMPAIGN_SPEND_PER_MINUTE,
        PACING_ALERTS,
    ),
)

if __name__ == "__main__":
    from jobs.run import main

    main(JOB)
