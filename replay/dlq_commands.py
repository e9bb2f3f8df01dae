"""`kappa dlq …`: look at dead letters, mend them, and send them to their topic again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import completion
from deploy.console import CommandError, json_value, print_json, print_table
from replay.opening import confirm, opened, say

if TYPE_CHECKING:
    from replay.letters import Filter, Letter, Mended, Workbench
    from replay.reinjection import Reinjection
    from replay.steps import Work
    from schemas.streams import Stream
    from sinks.clickhouse import ClickHouse

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_StreamName = Annotated[
    str,
    typer.Option(
        "--stream", help="Which stream's dead letters.", autocompletion=completion.streams
    ),
]
_Reason = Annotated[str, typer.Option(help="Only those with this reason, such as out_of_range.")]
_At = Annotated[
    list[str] | None, typer.Option("--at", help="Only this one: partition:offset; may be repeated.")
]
_Since = Annotated[datetime | None, typer.Option(help="Only events at or after this time, UTC.")]
_Until = Annotated[datetime | None, typer.Option(help="Only events before this time, UTC.")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Give a field this value: field=value; may be repeated."),
]
_Limit = Annotated[int | None, typer.Option(min=1, help="No more than so many.")]
_SHOWN = 20

_group = typer.Typer(no_args_is_help=True, help="Mend dead letters and send them again.")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(_group, name="dlq")


@_group.command("list")
def list_command(
    stream: _StreamName = "page_views",
    reason: _Reason = "",
    since: _Since = None,
    until: _Until = None,
    as_json: _AsJson = False,
) -> None:
    """Count the dead letters by reason, and those that were sent again.

    Example: kappa dlq list --reason out_of_range
    """
    with _bench(stream) as bench:
        letters = bench.find(_filter(reason, (), since, until, None))
        again = bench.sent_again()
    groups: dict[str, list[Letter]] = {}
    for letter in letters:
        groups.setdefault(letter.reason, []).append(letter)
    found = [
        {
            "reason": name,
            "events": len(members),
            "sent_again": sum(letter.place in again for letter in members),
            "first": _instant(min(letter.timestamp_ms for letter in members)),
            "last": _instant(max(letter.timestamp_ms for letter in members)),
            "example": members[0].detail,
        }
        for name, members in sorted(groups.items(), key=lambda pair: -len(pair[1]))
    ]
    if as_json:
        print_json(found)
        return
    columns = ("reason", "events", "sent_again", "first", "last", "example")
    title = f"Dead letters of {stream}"
    print_table(title, columns, [[row[name] for name in columns] for row in found])


@_group.command("show")
def show_command(
    stream: _StreamName = "page_views",
    reason: _Reason = "",
    at: _At = None,
    since: _Since = None,
    until: _Until = None,
    limit: _Limit = _SHOWN,
    as_json: _AsJson = False,
) -> None:
    """Show dead letters one by one: where they stood, what is wrong, and what they hold.

    Example: kappa dlq show --at 2:1841
    """
    with _bench(stream) as bench:
        letters = bench.find(_filter(reason, at or (), since, until, limit))
        again = bench.sent_again()
        found: list[dict[str, Any]] = [
            {
                "partition": letter.partition,
                "offset": letter.offset,
                "time": _instant(letter.timestamp_ms),
                "reason": letter.reason,
                "detail": letter.detail,
                "sent_again": letter.place in again,
                "schema_id": letter.schema_id,
                "key": None if letter.key is None else letter.key.decode(errors="replace"),
                "event": bench.workbench.decoded(letter),
                "bytes": (letter.value or b"").hex(),
            }
            for letter in letters
        ]
    if as_json:
        print_json(found)
        return
    for row in found:
        event = row.pop("event")
        rows = [
            (name, _short(value)) for name, value in row.items() if name != "bytes" or not event
        ]
        rows += [(f"  {name}", _short(value)) for name, value in (event or {}).items()]
        print_table("", ("", "dead letter"), rows)
    if not found:
        say("No dead letter is meant by these filters.")


@_group.command("repair")
def repair_command(
    to: Annotated[Path, typer.Argument(help="The file to write, a JSON line a letter.")],
    stream: _StreamName = "page_views",
    reason: _Reason = "",
    at: _At = None,
    since: _Since = None,
    until: _Until = None,
    changes: _Set = None,
    limit: _Limit = None,
    as_json: _AsJson = False,
) -> None:
    """Write dead letters to a file as JSON lines, mended by --set, to be edited and sent again.

    Each line's `fault` says what is still wrong with it by the stream's rules; `kappa dlq reinject
    --from` sends the file.

    Example: kappa dlq repair bad.jsonl --reason out_of_range --set status=200
    """
    from replay.letters import write_repairs

    with _bench(stream) as bench:
        letters = bench.find(_filter(reason, at or (), since, until, limit))
        mended = bench.mend(letters, changes or ())
    try:
        count = write_repairs(to, mended)
    except OSError as error:
        raise CommandError(f"{to} can't be written: {error.strerror}.") from error
    good = sum(not one.fault for one in mended)
    if as_json:
        print_json({"file": str(to), "events": count, "good": good})
        return
    say(f"{count:,} events written to {to}; {good:,} are good by the stream's rules now.")


@_group.command("reinject")
def reinject_command(
    stream: _StreamName = "page_views",
    reason: _Reason = "",
    at: _At = None,
    since: _Since = None,
    until: _Until = None,
    changes: _Set = None,
    repairs: Annotated[
        Path | None, typer.Option("--from", help="Send the events of this file of repairs.")
    ] = None,
    limit: _Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Send mended dead letters to their events topic again, each once.

    What is still wrong by the stream's rules is not sent, nor what was sent before. A letter that
    the rules of now would take as it is is not sent either: `kappa replay run` counts it, and both
    would count it twice. An event older than the allowed lateness goes to late_events, from where
    `kappa replay late` folds it in. Killed at any moment, the same command goes on.

    Example: kappa dlq reinject --reason out_of_range --set status=200 --dry-run
    """
    _refuse_reading(stream)
    with _bench(stream) as bench:
        if not dry_run:
            bench.work.control.lock(f"dlq {stream}")
        if repairs is not None:
            mended = bench.from_file(repairs)
        else:
            letters = bench.find(_filter(reason, at or (), since, until, None))
            mended = bench.mend(letters, changes or ())
        again = bench.sent_again()
        sorted_out = _sort(bench.workbench, mended, again)
        # Those sent before don't count: the next call goes on behind them.
        ready = sorted_out["ready"] = sorted_out["ready"][:limit]
        sent = 0
        if ready and not dry_run:
            confirm(yes, f"Send {len(ready):,} events to {bench.stream.topic}?")
            sent = bench.send(ready)
    if as_json:
        print_json({"dry_run": dry_run, "sent": sent, **_places(sorted_out)})
        return
    counts = [
        ("to send" if dry_run else "sent", len(ready) if dry_run else sent),
        ("sent before", len(sorted_out["before"])),
        ("still wrong by the stream's rules", len(sorted_out["wrong"])),
        ("taken by the rules of now: rebuild with kappa replay run", len(sorted_out["good"])),
    ]
    print_table(f"Dead letters of {stream}", ("", "events"), counts)
    wrong = [(one.letter.partition, one.letter.offset, one.fault) for one in sorted_out["wrong"]]
    if wrong:
        print_table("Still wrong", ("partition", "offset", "why"), wrong[:_SHOWN])


@dataclass
class _Bench:
    """One stream's dead letters and the means to work on them."""

    work: Work
    stream: Stream
    clickhouse: ClickHouse
    workbench: Workbench

    def find(self, wanted: Filter) -> list[Letter]:
        from replay.letters import find

        return find(self.clickhouse, self.stream, wanted)

    def mend(self, letters: list[Letter], texts: Any) -> list[Mended]:
        from replay.letters import parse_changes

        changes = parse_changes(texts)
        known = {field["name"] for field in self.stream.schema["fields"]}
        if strange := sorted(set(changes) - known):
            raise CommandError(f"stream {self.stream.name} has no field {', '.join(strange)}.")
        return [self.workbench.mended(letter, changes) for letter in letters]

    def from_file(self, path: Path) -> list[Mended]:
        from replay.letters import Filter, read_repairs

        given = dict(read_repairs(path))
        letters = self.find(Filter(places=tuple(given))) if given else []
        missing = sorted(set(given) - {letter.place for letter in letters})
        if missing:
            partition, offset = missing[0]
            raise CommandError(
                f"{path}: {self.stream.topic}, partition {partition}, offset {offset} is no dead "
                f"letter{f', nor are {len(missing) - 1} others' if missing[1:] else ''}."
            )
        return [self.workbench.mended(one, {}, given[one.place]) for one in letters]

    def sent_again(self) -> frozenset[tuple[int, int]]:
        return self._reinjection().places()

    def send(self, mended: list[Mended]) -> int:
        return self._reinjection().send(mended)

    def _reinjection(self) -> Reinjection:
        from replay.reinjection import Reinjection

        return Reinjection(self.work.control, self.work.settings.kafka_client, self.stream)


def _refuse_reading(stream: str) -> None:
    """Raise where another stream's events are meant: sent from both, they would count twice."""
    from schemas.streams import STREAMS

    if stream in STREAMS and (owner := STREAMS[stream].reads):
        raise CommandError(
            f"{stream} reads the events of {owner} once more; mend them there, for both: "
            f"--stream {owner}."
        )


@contextmanager
def _bench(stream_name: str) -> Iterator[_Bench]:
    from contextlib import closing
    from dataclasses import replace

    from replay.letters import BadRepair, Workbench
    from schemas.registry import Registry, publish_schema
    from schemas.streams import UnknownStream, stream_named
    from sinks.clickhouse import ClickHouse

    try:
        with opened() as work:
            settings = work.settings
            stream = replace(stream_named(stream_name), namespace=settings.namespace)
            with (
                closing(ClickHouse(settings, reader=True)) as clickhouse,
                Registry(**settings.registry_access, retry_for=10.0) as registry,
            ):
                number = publish_schema(registry, stream)
                yield _Bench(work, stream, clickhouse, Workbench(registry, stream, number))
    except (BadRepair, UnknownStream) as error:
        raise CommandError(str(error)) from error


def _filter(
    reason: str, at: Any, since: datetime | None, until: datetime | None, limit: int | None
) -> Filter:
    from replay.letters import Filter

    places = tuple(_place(text) for text in at)
    return Filter(reason, places, since, until, limit)


def _place(text: str) -> tuple[int, int]:
    partition, _, offset = text.partition(":")
    if not (partition.isdigit() and offset.isdigit()):
        raise CommandError(f'"{text}" is no partition:offset, such as 2:1841.')
    return int(partition), int(offset)


def _sort(
    bench: Workbench, mended: list[Mended], again: frozenset[tuple[int, int]]
) -> dict[str, list[Mended]]:
    found: dict[str, list[Mended]] = {"ready": [], "before": [], "wrong": [], "good": []}
    for one in mended:
        letter = one.letter
        if letter.place in again:
            found["before"].append(one)
        elif not bench.fault(letter.value, letter.timestamp_ms):
            found["good"].append(one)
        else:
            found["wrong" if one.fault else "ready"].append(one)
    return found


def _places(sorted_out: dict[str, list[Mended]]) -> dict[str, Any]:
    return {
        name: [
            {"partition": m.letter.partition, "offset": m.letter.offset, "fault": m.fault}
            for m in members
        ]
        for name, members in sorted_out.items()
    }


def _instant(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _short(value: Any) -> str:
    text = "–" if value is None else str(json_value(value))
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"
