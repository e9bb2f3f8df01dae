"""`kappa replay …`: rebuild views beside the live ones, compare, switch, and go back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.console import ERR, OUT, CommandError, print_json, print_table, progress_bar
from replay.late_commands import add_late
from replay.opening import confirm, opened, say

if TYPE_CHECKING:
    from replay.build import BuildProgress, Progress
    from replay.differences import Expectation
    from replay.records import ReplayPlan, ReplayRecord
    from replay.report import VerifyReport
    from replay.steps import Work

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Wait = Annotated[
    float, typer.Option(min=0, help="Wait so many seconds for a control plane that is down.")
]
_Views = Annotated[
    list[str] | None, typer.Argument(help="Views of one job; without any, all views of a job.")
]
_Job = Annotated[str, typer.Option(help="The job whose replay is meant, if several are open.")]
_FromEarliest = Annotated[
    bool, typer.Option("--from-earliest", help="Accept that the topic's first events are gone.")
]
_FromArchive = Annotated[
    bool,
    typer.Option("--from-archive", help="Take the events that the topic lacks from the archive."),
]
_Expect = Annotated[
    list[str] | None,
    typer.Option(
        help="What the fix changes, as SQL over old.column and new.column; may be repeated."
    ),
]
_ExpectColumn = Annotated[
    list[str] | None,
    typer.Option(help="A column that the fix changes; may be repeated."),
]
_MaxRate = Annotated[
    float | None, typer.Option(min=1, help="Read so many events a second at most.")
]
_Force = Annotated[
    str, typer.Option(help="Promote in spite of unexplained differences, for this reason.")
]

_group = typer.Typer(
    no_args_is_help=True,
    help="Rebuild views from offset zero beside the live ones, compare, switch, go back.",
)


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    add_late(_group)
    app.add_typer(_group, name="replay")


@_group.command("plan")
def plan_command(
    views: _Views = None,
    expect: _Expect = None,
    expect_column: _ExpectColumn = None,
    from_earliest: _FromEarliest = False,
    from_archive: _FromArchive = False,
    as_json: _AsJson = False,
) -> None:
    """Show what a replay would do, and check that it can; nothing is changed.

    Example: kappa replay plan page_views_per_minute --expect-column errors
    """
    with opened() as work:
        planned = _planned(work, views, expect, expect_column, from_earliest, from_archive)
    if as_json:
        print_json(planned.as_json())
    else:
        _print_plan(planned)


@_group.command("build")
def build_command(
    views: _Views = None,
    expect: _Expect = None,
    expect_column: _ExpectColumn = None,
    from_earliest: _FromEarliest = False,
    from_archive: _FromArchive = False,
    max_rate: _MaxRate = None,
    yes: _Yes = False,
    wait: _Wait = 0,
    as_json: _AsJson = False,
) -> None:
    """Build the views' next version beside the live one; goes on with one that was begun.

    Example: kappa replay build --expect-column errors --yes
    """
    with opened(wait) as work:
        replay = _begun(work, views, expect, expect_column, from_earliest, from_archive, yes)
        replay = _build(work, replay, max_rate)
        _print_replay(work, replay, as_json)


@_group.command("run")
def run_command(
    views: _Views = None,
    expect: _Expect = None,
    expect_column: _ExpectColumn = None,
    from_earliest: _FromEarliest = False,
    from_archive: _FromArchive = False,
    max_rate: _MaxRate = None,
    force: _Force = "",
    yes: _Yes = False,
    wait: _Wait = 0,
    as_json: _AsJson = False,
) -> None:
    """Plan, build, verify and promote in one go; the old version stays until it is retired.

    Example: kappa replay run page_views_per_minute --expect-column errors
    """
    with opened(wait) as work:
        replay = _begun(work, views, expect, expect_column, from_earliest, from_archive, yes)
        replay = _build(work, replay, max_rate)
        _promote(work, replay, force, yes)
        _print_replay(work, _current(work, replay.job), as_json)


@_group.command("status")
def status_command(as_json: _AsJson = False) -> None:
    """Show replays, the versions of views and who holds them. Example: kappa replay status"""
    with opened() as work:
        replays = work.control.replays()
        versions = work.control.version_states()
        leases = work.control.leases()
        journals = {one.id: work.control.journal(one.id) for one in replays[:5]}
    if as_json:
        print_json(
            {
                "replays": [_replay_json(one, journals.get(one.id, [])) for one in replays],
                "versions": [
                    {"view": view, "version": version, "state": state.value}
                    for (view, version), state in versions.items()
                ],
                "leases": [vars(lease) for lease in leases],
            }
        )
        return
    _print_status(replays, versions, leases, journals)


@_group.command("verify")
def verify_command(job: _Job = "", as_json: _AsJson = False) -> None:
    """Compare the new version with the old one, and class every difference.

    Exits with 1 where a difference is unexplained.

    Example: kappa replay verify --json
    """
    with opened() as work:
        reports = _verify(work, _current(work, job), as_json)
    if any(report.unexplained for report in reports):
        raise typer.Exit(1)


@_group.command("promote")
def promote_command(
    job: _Job = "", force: _Force = "", yes: _Yes = False, wait: _Wait = 0, as_json: _AsJson = False
) -> None:
    """Verify, then let people see the new version, in all views at one instant.

    Example: kappa replay promote --yes
    """
    with opened(wait) as work:
        replay = _promote(work, _current(work, job), force, yes)
        _print_replay(work, replay, as_json)


@_group.command("rollback")
def rollback_command(
    job: _Job = "",
    reason: Annotated[str, typer.Option(help="Why; kept in the journal.")] = "",
    yes: _Yes = False,
    wait: _Wait = 0,
    as_json: _AsJson = False,
) -> None:
    """Let people see the old version again; both go on being written.

    Example: kappa replay rollback --reason "the errors look wrong" --yes
    """
    from replay.switch import roll_back

    with opened(wait) as work:
        replay = _locked(work, _current(work, job))
        confirm(yes, f"Show version {_versions(replay)} of {', '.join(replay.views)} again?")
        _print_replay(work, roll_back(work, replay, reason), as_json)


@_group.command("retire")
def retire_command(
    job: _Job = "",
    grace: Annotated[float, typer.Option(min=0, help="Hours that must have passed.")] = 1.0,
    now: Annotated[bool, typer.Option("--now", help="Whatever the grace; needs --yes.")] = False,
    yes: _Yes = False,
    wait: _Wait = 0,
    as_json: _AsJson = False,
) -> None:
    """Drop the version that a promotion replaced: job, topics, tables and state.

    Example: kappa replay retire --grace 24 --yes
    """
    from replay.ending import retire

    if now and not yes:
        raise CommandError("--now leaves no time to go back; say --yes too if that is meant.")
    with opened(wait) as work:
        replay = _locked(work, _current(work, job))
        confirm(yes, f"Drop version {_versions(replay)} of {', '.join(replay.views)} for good?")
        hours = timedelta() if now else timedelta(hours=grace)
        _print_replay(work, retire(work, replay, now=datetime.now(UTC), grace=hours), as_json)


@_group.command("abort")
def abort_command(
    job: _Job = "", yes: _Yes = False, wait: _Wait = 0, as_json: _AsJson = False
) -> None:
    """Give up a replay that is not promoted, and drop what it built.

    Example: kappa replay abort --yes
    """
    from replay.ending import abort

    with opened(wait) as work:
        replay = _locked(work, _current(work, job))
        confirm(yes, f"Drop version {replay.to_version} of {', '.join(replay.views)}?")
        _print_replay(work, abort(work, replay), as_json)


# What the commands share


def _planned(
    work: Work,
    views: list[str] | None,
    expect: list[str] | None,
    expect_column: list[str] | None,
    from_earliest: bool,
    from_archive: bool,
) -> ReplayPlan:
    from replay.facts import chosen_job, gather
    from replay.plan import plan_replay

    job, chosen = chosen_job(views or ())
    facts = gather(work.settings, work.control, job, chosen, from_archive=from_archive)
    expected = _expectation(expect, expect_column)
    return plan_replay(facts, expected, from_earliest=from_earliest)


def _expectation(expect: list[str] | None, expect_column: list[str] | None) -> Expectation:
    from replay.differences import Expectation

    return Expectation(columns=tuple(expect_column or ()), conditions=tuple(expect or ()))


def _begun(
    work: Work,
    views: list[str] | None,
    expect: list[str] | None,
    expect_column: list[str] | None,
    from_earliest: bool,
    from_archive: bool,
    yes: bool,
) -> ReplayRecord:
    """Return the replay of these views that is being built, begun now where there is none."""
    from replay.control import taken
    from replay.facts import chosen_job
    from replay.plan import goes_on

    job, chosen = chosen_job(views or ())
    expected = _expectation(expect, expect_column)
    work.control.lock(job)
    current = work.control.current(job)
    if current is not None:
        if not goes_on(current, chosen, expected):
            raise taken(current, work.control.leases())
        say(f"Replay {current.id} goes on where it stopped.")
        return current
    planned = _planned(work, views, expect, expect_column, from_earliest, from_archive)
    _print_plan(planned, to_error=True)
    confirm(yes, f"Build version {planned.to_version} now?")
    return work.control.begin(planned)


def _build(work: Work, replay: ReplayRecord, max_rate: float | None) -> ReplayRecord:
    from replay.build import build

    with _build_bar() as progress:
        return build(work, replay, progress, max_rate)


_PHASES = {"restore": "Events restored", "read": "Events read", "load": "Records loaded"}


@contextmanager
def _build_bar() -> Iterator[Progress]:
    with progress_bar(unit="") as bar:
        tasks: dict[str, Any] = {}

        def show(progress: BuildProgress) -> None:
            what = _PHASES[progress.phase]
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task(what, total=progress.total)
            label = f"{what} ({progress.rate:,.0f}/s; live job behind by {progress.live_lag:,})"
            bar.update(
                tasks[progress.phase],
                completed=progress.done,
                total=progress.total,
                description=label if progress.phase == "read" else what,
            )

        yield show


def _verify(work: Work, replay: ReplayRecord, as_json: bool = False) -> list[VerifyReport]:
    from replay.checking import check
    from replay.report import print_report

    _locked(work, replay)
    with ERR.status("Comparing …"):
        reports = check(work, replay)
    for report in reports:
        print_report(report, as_json)
    return reports


def _promote(work: Work, replay: ReplayRecord, force: str, yes: bool) -> ReplayRecord:
    from replay.checking import check
    from replay.records import ReplayState
    from replay.switch import promote

    replay = _locked(work, replay)
    if replay.state in (ReplayState.BUILT, ReplayState.ROLLED_BACK):
        with ERR.status("Comparing …"):
            reports = check(work, replay)
        unexplained = sum(report.unexplained for report in reports)
        for report in reports:
            say(report.sentence)
        if unexplained and not force:
            raise CommandError(
                f"{unexplained:,} differences are unexplained, so nothing is promoted: see "
                '`kappa replay verify`; --force "reason" promotes all the same.'
            )
    confirm(yes, f"Show version {replay.to_version} of {', '.join(replay.views)} from now on?")
    return promote(work, replay, force)


def _current(work: Work, job: str) -> ReplayRecord:
    """Return the open replay, or where none is, say so."""
    from jobs.catalogue import job_named

    if job:
        job_named(job)
    found = [one for one in work.control.replays() if not job or one.job == job]
    still = [one for one in found if one.state.open]
    if len(still) == 1:
        return still[0]
    if still:
        jobs = ", ".join(one.job for one in still)
        raise CommandError(f"replays of several jobs are open ({jobs}); name one with --job.")
    last = f"; the last, {found[0].id}, is {found[0].state.words}" if found else ""
    raise CommandError(f"no replay is open{last}. `kappa replay build` begins one.")


def _locked(work: Work, replay: ReplayRecord) -> ReplayRecord:
    """Return the replay as it is once no other process changes it."""
    work.control.lock(replay.job)
    return next(one for one in work.control.replays() if one.id == replay.id)


def _versions(replay: ReplayRecord) -> str:
    return " and ".join(str(one) for one in sorted(set(replay.from_versions.values())))


# What they print


def _print_plan(plan: ReplayPlan, *, to_error: bool = False) -> None:
    versions = ", ".join(f"{v} {old} → {plan.to_version}" for v, old in plan.from_versions.items())
    offsets = ", ".join(f"{p}: {plan.begin[p]:,}–{end:,}" for p, end in plan.pinned.items())
    rows = [
        ("views and versions", versions),
        ("events, by partition", offsets),
        ("events in all", plan.events),
        ("schemas", ", ".join(map(str, plan.schema_ids)) or "none registered"),
        ("Flink slots", f"{plan.slots_needed} of {plan.slots_free} free"),
        (
            "disk",
            f"about {plan.bytes_needed / 1e6:,.1f} MB of {plan.bytes_free / 1e6:,.0f} MB free",
        ),
        ("time", f"about {plan.seconds:,.0f} s at {plan.rate:,.0f} events/s ({plan.rate_from})"),
        ("expected to differ", "; ".join((*plan.expected.columns, *plan.expected.conditions))),
    ]
    if plan.archive:
        rows.append(("from archive", f"{plan.archive} holds the topic's first events"))
    if plan.from_earliest:
        rows.append(("from earliest", "accepted: the topic's first events are gone"))
    if to_error:
        for name, value in rows:
            say(f"{name}: {value or 'nothing'}")
        return
    print_table(f"Replay of {plan.job}", ("", "plan"), rows)


def _replay_json(replay: ReplayRecord, journal: list[Any]) -> dict[str, Any]:
    return {
        "id": replay.id,
        "job": replay.job,
        "views": replay.views,
        "from_versions": dict(replay.from_versions),
        "to_version": replay.to_version,
        "state": replay.state.value,
        "created_at": replay.created_at,
        "changed_at": replay.changed_at,
        "plan": replay.plan.as_json(),
        "journal": [vars(entry) for entry in journal],
    }


def _print_replay(work: Work, replay: ReplayRecord, as_json: bool) -> None:
    if as_json:
        print_json(_replay_json(replay, work.control.journal(replay.id)))
        return
    OUT.print(
        f"Replay {replay.id}: version {replay.to_version} of {', '.join(replay.views)} is "
        f"{_SAID[replay.state.value]}",
        highlight=False,
        soft_wrap=True,
    )


_SAID = {
    "building": "being built.",
    "built": "built and goes on reading; next: kappa replay verify, kappa replay promote.",
    "promoted": "live. kappa replay rollback goes back; kappa replay retire drops the old one.",
    "rolled_back": "no longer shown; the old one is. Next: kappa replay promote or abort.",
    "retiring": "live; the old one is being dropped: kappa replay retire finishes it.",
    "aborting": "being dropped: kappa replay abort finishes it.",
    "retired": "live, and the old one is gone.",
    "aborted": "gone; the old one is as it was.",
}


def _print_status(
    replays: list[ReplayRecord], versions: dict[Any, Any], leases: list[Any], journals: Any
) -> None:
    rows = [
        (str(r.id), r.job, f"{_versions(r)} → {r.to_version}", r.state.words, r.changed_at)
        for r in replays
    ]
    print_table("Replays", ("id", "job", "versions", "state", "since"), rows)
    shown = [(view, str(version), state.value) for (view, version), state in versions.items()]
    print_table("Versions", ("view", "version", "state"), shown)
    if leases:
        held = [(one.view, str(one.replay_id), one.holder, one.taken_at) for one in leases]
        print_table("Leases", ("view", "replay", "begun by", "since"), held)
    if replays:
        lines = [(e.at, e.step, e.state, _detail(e.detail)) for e in journals[replays[0].id]]
        print_table(f"Journal of replay {replays[0].id}", ("at", "step", "state", ""), lines)


def _detail(detail: Any) -> str:
    return ", ".join(f"{name}: {value}" for name, value in detail.items() if value)
