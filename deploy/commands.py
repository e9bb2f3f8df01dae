"""Commands of the embedded stack: up, down, status, logs, demo, doctor, settings."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import ERR, OUT, CommandError, print_json, print_table

if TYPE_CHECKING:
    from rich.status import Status

    from deploy.settings import Settings
    from deploy.stack import PartStatus, Progress
    from replay.astray import Astray

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)
    app.command()(demo)
    app.command()(doctor)
    app.command()(settings)


def up(as_json: _AsJson = False) -> None:
    """Start the embedded stack, or what of it does not run. Example: kappa up"""
    from deploy.settings import Settings
    from deploy.stack import Stack

    began = time.monotonic()
    stack = Stack(Settings())
    if as_json:
        stack.up()
        parts = [asdict(one) for one in stack.status()]
        print_json({"parts": parts, "dashboard": stack.settings.serving})
        return
    with OUT.status("Starting the stack …") as spinner:
        stack.up(_progress(spinner))
    OUT.print(f"All parts are up after {time.monotonic() - began:.1f} s.", highlight=False)
    OUT.print(f"Dashboard and API: {stack.settings.serving}", highlight=False)
    if not stack.settings.clickhouse_embedded:
        one = stack.settings
        where = f"{one.clickhouse_host}:{one.clickhouse_http_port}"
        OUT.print(f"ClickHouse is yours, at {where}: none was started here.", highlight=False)


def _progress(spinner: Status) -> Progress:
    """Return what prints each part once it is healthy and names those still waited for."""
    shown: set[str] = set()

    def show(parts: list[PartStatus]) -> None:
        for one in parts:
            if one.state == "healthy" and one.name not in shown:
                shown.add(one.name)
                OUT.print(f"[green]✓[/] {one.title} on port {one.port}", highlight=False)
        awaited = ", ".join(one.title for one in parts if one.state != "healthy")
        spinner.update(f"Waiting for {awaited or 'the jobs'} …")

    return show


def down(as_json: _AsJson = False) -> None:
    """Stop the embedded stack; its data stays. Example: kappa down"""
    from deploy.settings import Settings
    from deploy.stack import Stack

    stack = Stack(Settings())
    stack.down()
    if as_json:
        print_json({"parts": [asdict(one) for one in stack.status()]})
    else:
        OUT.print("Everything is stopped; the data stays.", highlight=False)


def status(as_json: _AsJson = False) -> None:
    """Show every part of the stack and every job; exits with 1 where the stack is stopped.

    Example: kappa status --json
    """
    from deploy.failures import STOPPED
    from deploy.settings import Settings
    from deploy.stack import Stack
    from jobs.status import report

    settings = Settings()
    # Elsewhere the parts are containers or pods, which this command knows nothing of.
    parts = Stack(settings).status() if settings.embedded else []
    stopped = CommandError(STOPPED) if {one.state for one in parts} == {"stopped"} else None
    jobs = report(settings)
    names, unknown = _names(settings)
    if as_json:
        shown = None if unknown else [one.as_json() for one in names]
        print_json({"parts": [asdict(one) for one in parts], "jobs": jobs, "astray": shown})
        if stopped:
            raise stopped
        return
    if parts:
        columns = ("part", "state", "pid", "port", "restarts", "up, s", "note")
        print_table("Parts", columns, [_row(one) for one in parts])
    if jobs:
        from jobs.status import print_status

        print_status(jobs)
    elif not parts:
        OUT.print(
            "No stream is found that has events; `kappa doctor` asks each service.", markup=False
        )
    if stopped:
        raise stopped
    for text in (*(one.sentence for one in names), *filter(None, [unknown])):
        OUT.print(text, style="yellow", markup=False, highlight=False)


def _names(settings: Settings) -> tuple[tuple[Astray, ...], str]:
    """Return the views that show another version than the live one, or why that is not known."""
    from replay.control import Control, ControlUnavailable
    from replay.repoint import names_astray
    from sinks.clickhouse import ClickHouseFailed

    with Control(settings.postgres, settings.namespace) as control:
        try:
            return names_astray(settings, control), ""
        except (ControlUnavailable, ClickHouseFailed) as error:
            return (), f"Whether each view shows its live version is not known: {error}"


def _row(one: PartStatus) -> tuple[Any, ...]:
    uptime = None if one.uptime_seconds is None else round(one.uptime_seconds)
    pid = None if one.pid is None else str(one.pid)
    return (one.name, one.state, pid, str(one.port), one.restarts, uptime, one.detail)


def logs(
    part: Annotated[str, typer.Argument(help="A part as `kappa status` names it.")],
    lines: Annotated[int, typer.Option("-n", help="How many of the last lines.")] = 40,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it grows.")] = False,
) -> None:
    """Show the log of one part. Example: kappa logs kafka -n 100"""
    import os
    import subprocess
    from itertools import islice

    from deploy.parts import folders
    from deploy.settings import Settings

    place = folders(Settings())
    path = place.log(part)
    if not path.exists():
        known = ", ".join(sorted(found.stem for found in place.logs.glob("*.log"))) or "none yet"
        raise CommandError(
            f'There is no log of "{part}"; logs there are: {known}. What runs in containers has '
            f"its own: `docker compose logs {part}`, or `kubectl -n kappa logs deploy/{part}`."
        )
    with path.open("rb") as log:
        missing = lines - sum(1 for _ in islice(log, max(lines, 0)))
    # A log that was just shortened has nothing yet of what led there.
    if missing > 0 and (before := place.log_before(part)) is not None:
        subprocess.run(["tail", "-n", str(missing), str(before)], check=False)
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)])


def demo() -> None:
    """Show it all on a real access log: stack, events, job, results. Example: kappa demo"""
    from deploy.demo import run
    from deploy.settings import Settings

    run(Settings())


def doctor(as_json: _AsJson = False) -> None:
    """Check machine, ports, versions, services and clocks, and say what to do about each.

    Example: kappa doctor
    """
    from itertools import chain

    from deploy.doctor import machine, services
    from deploy.doctor.findings import Verdict
    from deploy.settings import Settings

    settings = Settings()
    found = list(chain(machine.look(settings), services.look(settings)))
    if as_json:
        print_json({"findings": [asdict(one) for one in found]})
    else:
        print_table("", ("what", "", "found"), [(f.subject, f.verdict, f.found) for f in found])
        for one in found:
            if one.remedy:
                OUT.print(f"{one.subject}: {one.remedy}", markup=False, highlight=False)
    worse = [one.subject for one in found if one.verdict is Verdict.BAD]
    if worse:
        raise CommandError(f"{', '.join(worse)}: see above what to do.")


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all with their defaults as a page.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Show every setting, its value here and what it is; secrets are hidden.

    Example: kappa settings --json
    """
    import sys

    from deploy.doctor.findings import settings_given
    from deploy.settings import Settings, given, variable
    from deploy.settings_page import in_effect, page

    if markdown:
        sys.stdout.write(page())
        return
    found = in_effect(Settings())
    judged = settings_given(given(), map(variable, Settings.model_fields))
    if judged.remedy:
        ERR.print(f"{judged.found}; {judged.remedy}", markup=False, soft_wrap=True)
    if as_json:
        print_json(found)
        return
    print_table("", ("setting", "value", "what it is"), [tuple(one.values()) for one in found])
