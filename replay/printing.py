"""What `kappa replay` prints of plans, replays and their journal, and its progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deploy.console import ERR, OUT, print_json, print_table, progress_bar
from replay.opening import say

if TYPE_CHECKING:
    from replay.build import BuildProgress, Progress
    from replay.records import JournalEntry, Lease, ReplayPlan, ReplayRecord, VersionState
    from replay.steps import Work

    Versions = Mapping[tuple[str, int], VersionState]
    Journals = Mapping[int, Sequence[JournalEntry]]

_SECONDS_A_LINE = 10.0
_PHASES = {"restore": "Events restored", "read": "Events read", "load": "Records loaded"}
_NEXT = {
    "building": "being built; kappa replay build goes on with it.",
    "built": "built and goes on reading; next: kappa replay verify, kappa replay promote.",
    "promoted": "live. kappa replay rollback goes back; kappa replay retire drops the old one.",
    "rolled_back": "no longer shown; the old one is. Next: kappa replay promote or abort.",
    "retiring": "live; the old one is being dropped: kappa replay retire finishes it.",
    "aborting": "being dropped: kappa replay abort finishes it.",
    "retired": "live, and the old one is gone.",
    "aborted": "gone; the old one is as it was.",
}


@contextmanager
def build_bar() -> Iterator[Progress]:
    """Give the means to show how far a build is: a bar, or now and then a line in a log."""
    if not ERR.is_terminal:
        yield _lines()
        return
    with progress_bar(unit="") as bar:
        tasks: dict[str, Any] = {}

        def show(progress: BuildProgress) -> None:
            if progress.phase not in tasks:
                tasks[progress.phase] = bar.add_task("", total=progress.total)
            bar.update(
                tasks[progress.phase],
                completed=progress.done,
                total=progress.total,
                description=_label(progress),
            )

        yield show


def _lines() -> Progress:
    """Return what says a line as a phase begins, and every some seconds while it lasts."""
    said: dict[str, float] = {}

    def show(progress: BuildProgress) -> None:
        now = time.monotonic()
        if now - said.get(progress.phase, -_SECONDS_A_LINE) >= _SECONDS_A_LINE:
            said[progress.phase] = now
            left = progress.seconds_left
            rest = f", {left:,.0f} s left" if left and progress.done < progress.total else ""
            say(f"{_label(progress)}: {progress.done:,} of {progress.total:,}{rest}")

    return show


def _label(progress: BuildProgress) -> str:
    what = _PHASES[progress.phase]
    if progress.phase != "read":
        return what
    held = "" if progress.limit is None else f", held at {progress.limit:,.0f}/s"
    return f"{what} ({progress.rate:,.0f}/s{held}; live job behind by {progress.live_lag or 0:,})"


def print_plan(plan: ReplayPlan, *, to_error: bool = False) -> None:
    """Print what a replay would do, beside a command's output with `to_error`."""
    versions = "; ".join(
        f"{old} → {plan.to_version}: {', '.join(views)}"
        for old, views in _views_by(plan.from_versions.items()).items()
    )
    offsets = "; ".join(
        f"{stream} {_spans(plan.begin[stream], ends)}" for stream, ends in plan.pinned.items()
    )
    needed, free = plan.bytes_needed / 1e6, plan.bytes_free / 1e6
    expected = (*plan.expected.columns, *plan.expected.conditions)
    rows = [
        ("views and versions", versions),
        ("events, by stream and partition", offsets),
        ("events in all", f"{plan.events:,}"),
        ("schemas", ", ".join(map(str, plan.schema_ids)) or "none registered"),
        ("Flink slots", f"{plan.slots_needed} of {_free(plan.slots_free)}"),
        ("disk", f"about {needed:,.1f} MB of {free:,.0f} MB free"),
        ("time", f"{_duration(plan.seconds)} at {plan.rate:,.0f} events/s ({plan.rate_from})"),
        ("expected to differ", "; ".join(expected) or "nothing"),
    ]
    if plan.archive:
        rows.append(("from archive", f"{plan.archive} holds the topic's first events"))
    if plan.from_earliest:
        rows.append(("from earliest", "accepted: first events are gone"))
    if plan.counted_twice:
        rows.append(("counted twice", f"accepted: {plan.counted_twice:,} mended dead letters"))
    if to_error:
        for name, value in rows:
            say(f"{name}: {value or 'nothing'}")
        return
    print_table(f"Replay of {plan.job}", ("", "plan"), rows)


def _free(slots: int | None) -> str:
    return "as many as are asked for" if slots is None else f"{slots} free"


def _spans(begin: Mapping[int, int], ends: Mapping[int, int]) -> str:
    return ", ".join(f"{part}: {begin[part]:,}–{end:,}" for part, end in ends.items())


def _duration(seconds: float) -> str:
    """Return the time of reading in words; what a job's start takes is more than some seconds."""
    return f"about {seconds / 60:,.0f} min" if seconds >= 60 else "under a minute"


def print_replay(work: Work, replay: ReplayRecord, as_json: bool) -> None:
    """Print how a replay is and what comes next."""
    if as_json:
        print_json(_replay_json(replay, work.control.journal(replay.id)))
        return
    _print_next(replay)


def _print_next(replay: ReplayRecord) -> None:
    OUT.print(
        f"Replay {replay.id}: version {replay.to_version} of {', '.join(replay.views)} is "
        f"{_NEXT[replay.state.value]}",
        highlight=False,
        soft_wrap=True,
    )


def _replay_json(replay: ReplayRecord, journal: Sequence[JournalEntry]) -> dict[str, Any]:
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


def status_json(
    replays: Sequence[ReplayRecord],
    versions: Versions,
    leases: Sequence[Lease],
    journals: Journals,
) -> dict[str, Any]:
    """Return what `kappa replay status` prints for programs."""
    return {
        "replays": [_replay_json(one, journals.get(one.id, [])) for one in replays],
        "versions": [
            {"view": view, "version": version, "state": state.value}
            for (view, version), state in versions.items()
        ],
        "leases": [vars(lease) for lease in leases],
    }


def print_status(
    replays: Sequence[ReplayRecord],
    versions: Versions,
    leases: Sequence[Lease],
    journals: Journals,
) -> None:
    """Print all replays, versions and leases, and the journal of the newest replay."""
    if not replays:
        OUT.print("No replay yet; kappa replay plan shows what one would do.", highlight=False)
        return
    rows = [
        (str(r.id), r.job, f"{_versions(r)} → {r.to_version}", r.state.words, r.changed_at)
        for r in replays
    ]
    print_table("Replays", ("id", "job", "versions", "state", "since"), rows)
    by_view = _views_by((f"{n} {state}", view) for (view, n), state in versions.items())
    shown = [(view, ", ".join(states)) for view, states in by_view.items()]
    print_table("Views", ("view", "versions"), shown)
    held = _views_by((one.view, (one.replay_id, one.holder, one.taken_at)) for one in leases)
    if held:
        owners = [(str(of), ", ".join(views), who, at) for (of, who, at), views in held.items()]
        print_table(
            "Leases", ("replay", "views that it alone may change", "begun by", "at"), owners
        )
    newest = replays[0]
    lines = [(e.at, e.step, e.state, _detail(e.detail)) for e in journals[newest.id]]
    print_table(f"Journal of replay {newest.id}", ("at", "step", "state", ""), lines)
    for one in [r for r in replays if r.state.open] or [newest]:
        _print_next(one)


def _views_by(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    """Return the first of each pair by the second, in order."""
    found: dict[Any, list[Any]] = {}
    for one, by in pairs:
        found.setdefault(by, []).append(one)
    return found


def _detail(detail: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name.replace('_', ' ')}: {_told(name, value)}" for name, value in detail.items() if value
    )


def _told(name: str, value: Any) -> str:
    """Return what a step noted as people read it, not as Python writes it."""
    if name == "effective_from":
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, Mapping):
        inner = ((key, one, _told("", one)) for key, one in value.items())
        return ", ".join(
            f"{key} ({told})" if isinstance(one, Mapping) else f"{key}: {told}"
            for key, one, told in inner
        )
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def replaced(replay: ReplayRecord) -> str:
    """Return what a replay replaces, as people are asked about it."""
    return f"version {_versions(replay)} of {', '.join(replay.views)}"


def _versions(replay: ReplayRecord) -> str:
    return " and ".join(str(one) for one in sorted(set(replay.from_versions.values())))
