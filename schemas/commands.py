"""`kappa produce` and `kappa schemas`: send files of events, and show or change what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import completion

if TYPE_CHECKING:
    from deploy.settings import Settings
    from schemas.inputs import Format
    from schemas.registry import Registry
    from schemas.sending import Sending, Sent
    from schemas.streams import Stream

_STREAM_HELP = "Which stream the events belong to."
_JSON_HELP = "Print JSON for programs."

schemas_app = typer.Typer(
    help="List, register and check the schemas of the streams.",
    invoke_without_command=True,
    no_args_is_help=False,
)


def register(app: typer.Typer) -> None:
    """Add this room's commands to `kappa`."""
    app.command("produce")(produce)
    app.add_typer(schemas_app, name="schemas")


def produce(
    file: Annotated[
        str, typer.Argument(help='File of events, "-" for standard input, or "sample".')
    ] = "sample",
    stream: Annotated[
        str, typer.Option(help=_STREAM_HELP, autocompletion=completion.streams)
    ] = "page_views",
    format: Annotated[
        str, typer.Option(help="access-log, json-lines or avro; told from the content if left out.")
    ] = "",
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0 for no limit.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many events; 0 for all.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on past bad lines.")] = False,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out fields the schema does not have.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve metrics for Prometheus on this port."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Send a file of events to its stream, each at its own time.

    Takes Apache access logs, JSON lines (event_time as epoch milliseconds or ISO 8601) and Avro
    container files, plain or gzipped. The topic and the schema are created where they are
    missing. A bad line stops the run, and says where it is, unless --skip-bad; the shipped
    sample has one that is known and always passed over.

    Example: kappa produce access.log.gz --stream page_views --rate 1000
    """
    from deploy.settings import Settings
    from schemas.inputs import SAMPLE
    from schemas.sending import Sending

    settings = Settings()
    is_sample = file == "sample"
    order = Sending(
        path=SAMPLE if is_sample else Path(file),
        format=_format(format),
        rate=rate or None,
        limit=limit or None,
        skip_bad=skip_bad or is_sample,
        ignore_unknown=ignore_unknown,
        metrics_port=metrics_port,
        metrics_host=settings.metrics_host,
    )
    with _plain_errors():
        target = _stream(stream, settings)
        sent = _send(settings, target, order)
    _print_sent(target, sent, as_json)


@schemas_app.callback()
def list_schemas(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """List the streams with their registered versions.

    Example: kappa schemas --json
    """
    if context.invoked_subcommand is not None:
        return
    from deploy.console import print_json, print_table
    from deploy.settings import Settings
    from schemas.streams import STREAMS

    settings = Settings()
    with _plain_errors(), _registry(settings) as registry:
        rows = [_status(registry, _stream(name, settings)) for name in STREAMS]
    if as_json:
        print_json(rows)
        return
    print_table(
        "Schemas",
        ("stream", "subject", "versions", "latest id", "compatibility", "current schema"),
        (
            (
                row["stream"],
                row["subject"],
                ", ".join(map(str, row["versions"])) or None,
                row["latest_id"],
                row["compatibility"],
                row["current"],
            )
            for row in rows
        ),
    )


@schemas_app.command("register")
def register_schema(
    stream: Annotated[
        str,
        typer.Argument(help="Stream; all of them if left out.", autocompletion=completion.streams),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Register the current schema of a stream; one that can't read earlier events is refused.

    Example: kappa schemas register page_views
    """
    from deploy.console import print_json, print_table
    from deploy.settings import Settings
    from schemas.registry import publish_schema
    from schemas.streams import STREAMS

    settings = Settings()
    with _plain_errors(), _registry(settings) as registry:
        targets = [_stream(name, settings) for name in ([stream] if stream else STREAMS)]
        ids = [(target, publish_schema(registry, target)) for target in targets]
    if as_json:
        print_json([{"stream": t.name, "subject": t.subject, "id": each} for t, each in ids])
    else:
        rows = ((t.name, t.subject, each) for t, each in ids)
        print_table("Registered", ("stream", "subject", "id"), rows)


@schemas_app.command("check")
def check_schema(
    file: Annotated[Path, typer.Argument(help="An Avro schema, .avsc.")],
    stream: Annotated[str, typer.Option(help="Stream; the file's name if left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help=_JSON_HELP)] = False,
) -> None:
    """Tell whether a schema could follow the registered ones, and register nothing.

    Exits with 1 where it could not.

    Example: kappa schemas check schemas/page_views.avsc
    """
    from deploy.console import OUT, CommandError, print_json
    from deploy.settings import Settings

    settings, schema = Settings(), _schema_in(file)
    with _plain_errors(), _registry(settings) as registry:
        target = _stream(stream or file.stem, settings)
        reasons = registry.check(target.subject, schema)
    if as_json:
        print_json({"subject": target.subject, "compatible": not reasons, "reasons": reasons})
        if reasons:
            raise typer.Exit(1)
    elif reasons:
        raise CommandError(f"{file} can't follow {target.subject}: {' '.join(reasons)}")
    else:
        OUT.print(f"{file} can follow {target.subject}.", markup=False, soft_wrap=True)


def _send(settings: Settings, stream: Stream, order: Sending) -> Sent:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from deploy.console import ERR
    from schemas.sending import send_file

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[events]:,} events"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with _registry(settings) as registry, Progress(*columns, console=ERR) as bar:
        task = bar.add_task(stream.topic, total=None, events=0, rate=0.0)

        def report(events: int, share: float | None) -> None:
            rate = events / max(bar.tasks[0].elapsed or 0.0, 0.001)
            total = None if share is None else 1.0
            bar.update(task, total=total, completed=share, events=events, rate=rate)

        return send_file(settings.kafka_client, registry, stream, order, report)


def _print_sent(stream: Stream, sent: Sent, as_json: bool) -> None:
    from deploy.console import OUT, print_json, print_table

    per_second = sent.events / max(sent.seconds, 0.001)
    if as_json:
        print_json(
            {
                "stream": stream.name,
                "topic": stream.topic,
                "format": sent.format.value,
                "events": sent.events,
                "skipped": sent.skipped,
                "refusals": [{"where": bad.where, "why": bad.why} for bad in sent.refusals],
                "seconds": round(sent.seconds, 3),
                "events_per_second": round(per_second),
                "end_offsets": sent.end_offsets,
            }
        )
        return
    text = f"{sent.events:,} events to {stream.topic} in {sent.seconds:.1f} s, {per_second:,.0f}/s."
    OUT.print(text, highlight=False, soft_wrap=True)
    print_table("End offsets", ("partition", "end offset"), sent.end_offsets.items())
    if sent.skipped:
        shown = ((bad.where, bad.why) for bad in sent.refusals)
        print_table(f"Passed over: {sent.skipped:,}", ("where", "why"), shown)


def _status(registry: Registry, stream: Stream) -> dict[str, Any]:
    latest = registry.latest(stream.subject)
    if latest is None:
        current = "not registered"
    elif latest.schema == stream.schema:
        current = "registered"
    else:
        current = "differs from the latest version"
    return {
        "stream": stream.name,
        "subject": stream.subject,
        "versions": list(registry.versions(stream.subject)),
        "latest_id": latest.id if latest else None,
        "compatibility": registry.compatibility(stream.subject),
        "current": current,
    }


def _stream(name: str, settings: Settings) -> Stream:
    from dataclasses import replace

    from schemas.streams import stream_named

    return replace(stream_named(name), namespace=settings.namespace)


def _registry(settings: Settings) -> Registry:
    from schemas.registry import Registry

    # A person waits, so not for long.
    return Registry(**settings.registry_access, retry_for=10.0)


def _format(name: str) -> Format | None:
    from deploy.console import CommandError
    from schemas.inputs import Format

    if not name:
        return None
    try:
        return Format(name)
    except ValueError:
        known = ", ".join(each.value for each in Format)
        raise CommandError(f'"{name}" is no format; formats are: {known}.') from None


def _schema_in(file: Path) -> dict[str, Any]:
    import fastavro

    from deploy.console import CommandError

    try:
        schema: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"can't read an Avro schema from {file}: {error}.") from error
    # Registries say yes to anything for a subject without versions.
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise CommandError(f"{file} has no schema of a record, which an event is.")
    try:
        fastavro.parse_schema(schema)
    # A schema that is none makes it raise whatever it stumbles over.
    except Exception as error:
        raise CommandError(f"{file} has no Avro schema: {error!r}.") from error
    return schema


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what this room raises into the one sentence that a command ends with."""
    from deploy.console import CommandError
    from schemas.inputs import InputError
    from schemas.producer import DeliveryFailed, InvalidEvent
    from schemas.producer_metrics import MetricsPortTaken
    from schemas.registry import RegistryError
    from schemas.sending import BadInput
    from schemas.streams import UnknownStream
    from schemas.topics import KafkaUnavailable, TopicMismatch

    known = (
        InputError,
        BadInput,
        InvalidEvent,
        DeliveryFailed,
        MetricsPortTaken,
        RegistryError,
    )
    try:
        yield
    except (*known, UnknownStream, KafkaUnavailable, TopicMismatch) as error:
        raise CommandError(str(error.args[0])) from error
