"""ClickHouse's HTTP interface over an engine embedded in one process."""
