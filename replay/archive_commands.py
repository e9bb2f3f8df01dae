"""`kappa archive …`: keep events topics in files beyond Kafka's retention, and check the files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import completion
from deploy.console import ERR, CommandError, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from deploy.settings import Settings
    from replay.archive import PartitionArchive, Progress
    from replay.archive_files import Archive
    from schemas.streams import Stream

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_StreamName = Annotated[
    str, typer.Argument(help="Which stream's events.", autocompletion=completion.streams)
]
_To = Annotated[
    str, typer.Option(help="Folder or s3:// URI; KAPPA_ARCHIVE_URL or the home's archive without.")
]

_group = typer.Typer(
    no_args_is_help=True,
    help="Keep events topics in Parquet files, in a folder or an S3-compatible store.",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(_group, name="archive")


@_group.command("run")
def run_command(
    stream: _StreamName = "page_views",
    once: Annotated[
        bool, typer.Option("--once/--follow", help="Stop at the end, or go on for ever.")
    ] = True,
    every: Annotated[
        float, typer.Option(min=1, help="With --follow: seconds between two looks at the topic.")
    ] = 300.0,
    to: _To = "",
    as_json: _AsJson = False,
) -> None:
    """Archive the committed events of a stream; goes on where the archive ends.

    Killed at any moment, it leaves whole files, and the same command goes on after them. With
    --follow it tells of each look what it added, and once the first has come to its end it goes on
    past an outage of Kafka or the store.

    Example: kappa archive run page_views --to s3://bucket/events
    """
    from replay.archive import catch_up, only_archiver

    with _opened(stream, to) as (settings, found, archive):

        def look() -> int:
            with _bar("Offsets archived") as progress:
                return catch_up(settings.kafka_client, found.topic, archive, progress)

        with only_archiver(settings.home, found.topic):
            if not once:
                for added in _rounds(look, every):
                    _print_added(stream, archive, added, as_json)
            added = look()
        if as_json:
            _print_added(stream, archive, added, as_json)
        else:
            print_table("", ("archive", "offsets added"), [(archive.url, added)])


def _rounds(look: Callable[[], int], every: float) -> Iterator[int]:
    """Yield what each look added, without end; one that meets an outage says so.

    Raises what the first look raises, and of later ones what another try would meet too.
    """
    from replay.archive_files import ArchiveAway
    from schemas.topics import KafkaUnavailable

    # A wrong address or key looks like an outage, but never lets a look come to its end.
    yield look()
    while True:
        time.sleep(every)
        try:
            added = look()
        except ArchiveAway as error:
            if isinstance(error.__cause__, PermissionError):
                raise
            _print_outage(f"{error.happened}.", every)
        except KafkaUnavailable as error:
            if error.refused:
                raise
            _print_outage(str(error), every)
        else:
            yield added


def _print_outage(what: str, every: float) -> None:
    ERR.print(f"{what} Next try in {every:g} s.", markup=False, soft_wrap=True)


def _print_added(stream: str, archive: Archive, added: int, as_json: bool) -> None:
    if as_json:
        print_json({"stream": stream, "to": archive.url, "added": added})
    else:
        typer.echo(f"{datetime.now():%H:%M:%S}  {added:,} offsets added to {archive.url}")
    # Whoever reads them through a pipe is to have each line at once.
    sys.stdout.flush()


@_group.command("status")
def status_command(
    stream: _StreamName = "page_views", to: _To = "", as_json: _AsJson = False
) -> None:
    """Show what is archived of a stream, and what is not yet.

    Example: kappa archive status page_views
    """
    from replay.archive import status

    with _opened(stream, to) as (settings, found, archive):
        partitions = status(settings.kafka_client, found.topic, archive)
        _print(f"Archive of {found.topic} at {archive.url}", partitions, as_json)


@_group.command("verify")
def verify_command(
    stream: _StreamName = "page_views", to: _To = "", as_json: _AsJson = False
) -> None:
    """Read the archive through: no gap, nothing twice, and the same records as in the topic.

    Exits with 1 where anything is wrong.

    Example: kappa archive verify page_views
    """
    from replay.archive import verify

    with _opened(stream, to) as (settings, found, archive):
        with _bar("Offsets verified") as progress:
            partitions = verify(settings.kafka_client, found.topic, archive, progress)
        _print(f"Archive of {found.topic} at {archive.url}", partitions, as_json)
    if any(one.problems for one in partitions):
        raise typer.Exit(1)


def _print(title: str, partitions: list[PartitionArchive], as_json: bool) -> None:
    if as_json:
        print_json({"partitions": [{**vars(one), "behind": one.behind} for one in partitions]})
        return
    columns = ("partition", "archived", "records", "files", "bytes", "topic holds", "behind")
    rows = [
        (
            str(one.partition),
            "nothing" if one.first is None else f"{one.first:,}–{one.next:,}",
            one.records,
            one.files,
            one.size,
            f"{one.topic_first:,}–{one.topic_next:,}",
            one.behind,
            one.compared,
            "; ".join(one.problems) or "none",
        )
        for one in partitions
    ]
    print_table(title, (*columns, "compared", "problems"), rows)


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    with progress_bar() as bar:
        task: Any = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _opened(stream: str, to: str) -> Iterator[tuple[Settings, Stream, Archive]]:
    """Give settings, stream and archive, and turn every failure of theirs into one sentence."""
    from dataclasses import replace

    from deploy.settings import Settings
    from replay.archive_files import Archive, ArchiveFailed
    from schemas.streams import UnknownStream, stream_named
    from schemas.topics import KafkaUnavailable, TopicMismatch, UnknownTopic

    settings = Settings()
    try:
        found = replace(stream_named(stream), namespace=settings.namespace)
        yield settings, found, Archive(to or settings.archive, found.topic)
    except (
        ArchiveFailed,
        KafkaUnavailable,
        OSError,
        TopicMismatch,
        UnknownStream,
        UnknownTopic,
    ) as error:
        raise CommandError(str(error)) from error
