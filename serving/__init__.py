"""The API and the dashboard; reads ClickHouse only."""
