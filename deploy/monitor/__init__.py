"""Metrics that no part can tell of itself: lags in time, freshness, jobs that are gone, replays.

One process beside all others, so that what a stopped part would say is still said:
`python -m deploy.monitor`.
"""
