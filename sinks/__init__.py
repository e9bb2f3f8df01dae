"""View topics and dead letters to ClickHouse."""
