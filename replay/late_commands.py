"""`kappa replay late VIEW`: fold late events into the windows that they missed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import completion
from deploy.console import ERR, OUT, print_json, print_table
from replay.opening import confirm, opened
from replay.options import Manner, spread

if TYPE_CHECKING:
    from replay.late_repair import RepairPlan, RowChange

_SHOWN_ROWS = 20
_STATES = ("ready", "waiting", "repaired", "expired")


def add_late(group: typer.Typer) -> None:
    """Add the command to the group `kappa replay`."""
    group.command("late")(late_command)


@spread
def late_command(
    *,
    view: Annotated[
        str,
        typer.Argument(
            help="The view to repair, as people see it.", autocompletion=completion.views
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show windows and events; change nothing.")
    ] = False,
    manner: Manner,
) -> None:
    """Fold events that came later than allowed into their windows, without rebuilding the rest.

    The windows are computed anew from the events topic and written over the live version's rows.
    Those that the job may still write are left for later. A repaired event stays in late_events,
    and stands in repaired_events as well; it is folded in once. A later replay judges it late
    again: after promoting one, run this once more.

    Example: kappa replay late page_views_per_minute --dry-run
    """
    from jobs.catalogue import job_of, view_named
    from replay.late_repair import plan_repair, repair, target_of

    with opened(manner.wait) as work:
        if not dry_run:
            work.control.lock(job_of(view_named(view)).name)
        with ERR.status("Computing …"):
            planned = plan_repair(work, target_of(work.settings, view), datetime.now(UTC))
        number = None
        if not dry_run:
            if planned.events:
                confirm(manner.yes, _question(planned))
            number = repair(work, planned)
    if manner.as_json:
        print_json(_document(planned, number, dry_run))
    else:
        _print(planned, number, dry_run)


def _question(planned: RepairPlan) -> str:
    target = planned.target
    return (
        f"Fold {len(planned.events):,} late events into {len(planned.changes):,} rows of "
        f"{target.view.name} version {target.version}?"
    )


def _document(planned: RepairPlan, number: int | None, dry_run: bool) -> dict[str, Any]:
    target = planned.target
    return {
        "view": target.view.name,
        "version": target.version,
        "dry_run": dry_run,
        "repair": number,
        "read": dict(planned.read),
        "settled_until": _instant(planned.settled),
        "events": {
            **{state: _events(planned, state) for state in _STATES},
            "refused": [
                {"partition": place[0], "offset": place[1], "reason": reason}
                for place, reason in sorted(planned.refused.items())
            ],
        },
        "rows": [_row(planned, change) for change in planned.changes],
    }


def _events(planned: RepairPlan, state: str) -> list[dict[str, Any]]:
    events = planned.events if state == "ready" else getattr(planned.late, state)
    return [
        {
            "partition": event.partition,
            "offset": event.offset,
            "timestamp": _instant(event.timestamp_ms),
        }
        for event in events
    ]


def _row(planned: RepairPlan, change: RowChange) -> dict[str, Any]:
    view, names = planned.target.view, tuple(planned.target.view.measures)
    start, *dimensions = change.key
    before = None if change.before is None else dict(zip(names, change.before, strict=True))
    return {
        "window_start": _instant(start),
        **dict(zip(view.dimensions, dimensions, strict=True)),
        "before": before,
        "after": dict(zip(names, change.after, strict=True)),
    }


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _print(planned: RepairPlan, number: int | None, dry_run: bool) -> None:
    target, late = planned.target, planned.late
    counts = [
        ("to fold in" if dry_run else "folded in", len(planned.events)),
        ("folded in before", len(late.repaired)),
        ("wait: the job may still write their windows", len(late.waiting)),
        ("too old: the view keeps their rows no longer", len(late.expired)),
        ("no good events by the rules of now", len(planned.refused)),
    ]
    title = f"Late events of {target.view.name} version {target.version}"
    print_table(title, ("", "events"), counts)
    names = tuple(target.view.measures)
    rows = [
        (_instant(change.key[0]), *change.key[1:], *_changes(change, len(names)))
        for change in planned.changes[:_SHOWN_ROWS]
    ]
    if rows:
        columns = ("window_start", *target.view.dimensions, *names)
        print_table("Rows" if dry_run else "Rows written", columns, rows)
    if more := len(planned.changes) - len(rows):
        _say(f"… and {more:,} rows more; --json has them all.")
    if late.waiting:
        until = _instant(planned.settled)
        _say(
            "Windows are settled once every partition of "
            f"{target.view.stream.topic} has passed them; the least watermark is "
            f"{until.isoformat() if until else 'not known yet'}."
        )
    if number is not None:
        _say(f"Repair {number} is done.")


def _changes(change: RowChange, count: int) -> list[str]:
    before = change.before or (None,) * count
    return [
        _cell(new) if old == new else f"{_cell(old)} → {_cell(new)}"
        for old, new in zip(before, change.after, strict=True)
    ]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def _say(text: str) -> None:
    OUT.print(text, markup=False, highlight=False, soft_wrap=True)
