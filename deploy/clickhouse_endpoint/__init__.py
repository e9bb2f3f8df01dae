"""ClickHouse's HTTP interface over an engine (chDB) embedded in one process.

The owner may do what the process may, files and network included, so the endpoint listens on
loopback only, and refuses what pages of other sites ask through a browser there. The reader may
only read what the engine holds, and sets only what bounds a query or shapes its answer. What a
ClickHouse server has and this has not: a query can't be killed by its client's `query_id`, a
reader's session keeps nothing, a form carries no external tables, and there is no
`system.query_log`.
"""
