"""`kappa sql`, `load`, `lag` and `tables`: ask ClickHouse, fill it, and see how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.console import CommandError, print_json, print_table

if TYPE_CHECKING:
    from sinks.lag import PartitionLag

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    app.command()(sql)
    app.command()(tables)
    app.command()(load)
    app.command()(lag)


def sql(
    query: Annotated[str, typer.Argument(help='A query, or "-" for standard input.')],
    as_json: Annotated[
        bool, typer.Option("--json", help='Print {"columns": […], "rows": [[…]]}.')
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    limit: Annotated[
        int, typer.Option(min=0, help="Print so many rows of the table at most; 0 for all.")
    ] = 100,
) -> None:
    """Ask ClickHouse, as the user who may only read.

    Example: kappa sql "SELECT reason, count() FROM dead_letters GROUP BY reason"
    """
    from deploy.settings import Settings
    from sinks.clickhouse import ClickHouse
    from sinks.queries import failures_explained

    if as_json and as_csv:
        raise CommandError("--json and --csv exclude each other; choose one.")
    text = sys.stdin.read() if query == "-" else query
    clickhouse = ClickHouse(Settings(), reader=True)
    with failures_explained(clickhouse):
        if as_csv:
            # As they are: text may be any bytes.
            sys.stdout.buffer.write(clickhouse.text(text, "CSVWithNames"))
            return
        answer = clickhouse.query(text)
    if as_json:
        print_json({"columns": answer.columns, "rows": answer.rows})
        return
    shown = answer.rows[:limit] if limit else answer.rows
    print_table("", answer.columns, shown)
    if len(shown) < len(answer.rows):
        typer.echo(f"{len(shown):,} of {len(answer.rows):,} rows; --limit 0 prints all.", err=True)


def tables(as_json: _AsJson = False) -> None:
    """List the views with their versions, rows and how fresh they are.

    Example: kappa tables --json
    """
    from dataclasses import asdict
    from datetime import UTC, datetime

    from deploy.settings import Settings
    from sinks.clickhouse import ClickHouse
    from sinks.queries import failures_explained, loaded_tables

    clickhouse = ClickHouse(Settings(), reader=True)
    with failures_explained(clickhouse):
        found = loaded_tables(clickhouse, datetime.now(UTC))
    if as_json:
        print_json({"tables": [asdict(one) for one in found]})
        return
    headings = ("name", "version", "public", "table", "rows", "newest row, s ago")
    rows = [
        (t.name, t.version, t.public, t.table, t.rows, t.age_seconds and round(t.age_seconds, 1))
        for t in found
    ]
    print_table("", headings, rows)


def load(
    once: Annotated[
        bool, typer.Option("--once", help="Load what is there by now, then exit.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Load the view topics, dead letters and late events into ClickHouse until told to stop.

    The embedded stack runs one such loader by itself; further ones share the work with it.

    Example: kappa load --once
    """
    from sinks import loader

    if as_json and not once:
        raise CommandError("--json goes with --once; a loader that goes on prints no count.")
    if not once:
        raise typer.Exit(loader.main())
    from sinks.catching_up import catch_up

    with _plain_errors():
        records = catch_up()
    if as_json:
        print_json({"records": records})
    else:
        typer.echo(f"{records:,} records loaded; ClickHouse is up to date.")


def lag(as_json: _AsJson = False) -> None:
    """Show how far the loader, and each reader of events, is behind its topics.

    Example: kappa lag --json
    """
    from deploy.settings import Settings
    from sinks.lag import LagReader
    from sinks.loader import group_of

    settings = Settings()
    reader, group = LagReader(settings.kafka_client), group_of(settings)
    with _plain_errors():
        found = reader.loader(group, settings.topic_prefix)
        found += reader.readers(f"{settings.topic_prefix}events.", but=group)
    if as_json:
        print_json({"partitions": [_lag_json(one) for one in found]})
        return
    headings = ("group", "topic", "partition", "committed", "end", "lag")
    rows = [(p.group, p.topic, p.partition, p.committed, p.end, p.lag) for p in found]
    print_table("", headings, rows)


def _lag_json(one: PartitionLag) -> dict[str, object]:
    return {
        "group": one.group,
        "topic": one.topic,
        "partition": one.partition,
        "committed": one.committed,
        "end": one.end,
        "lag": one.lag,
    }


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn the failures of loading into one sentence."""
    from schemas.topics import KafkaUnavailable
    from sinks.clickhouse import ClickHouseFailed
    from sinks.loader import FAILURES

    try:
        yield
    except (ClickHouseFailed, KafkaUnavailable, *FAILURES) as error:
        raise CommandError(str(error)) from error
