"""A finding, and how figures become one. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

GIB = 1024**3
_LEAST_DISK, _GOOD_DISK = 1 * GIB, 5 * GIB
# What the parts of a running stack hold together, measured.
STACK_MEMORY = round(4.5 * GIB)
_SMALL_SKEW, _MOST_SKEW = 1.0, 60.0


class Verdict(StrEnum):
    """How a thing is; only `BAD` makes the command fail."""

    WELL = "well"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` says what to do and is empty where all is well."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def well(subject: str, found: str) -> Finding:
    """Return that `subject` is as it should be."""
    return Finding(subject, Verdict.WELL, found)


def bad(subject: str, found: str, remedy: str) -> Finding:
    """Return that nothing works before `remedy` is done."""
    return Finding(subject, Verdict.BAD, found, remedy)


def warn(subject: str, found: str, remedy: str) -> Finding:
    """Return that something may not work before `remedy` is done."""
    return Finding(subject, Verdict.WARN, found, remedy)


def settings_given(given: Iterable[str], known: Iterable[str]) -> Finding:
    """Judge the variables that are `given`: one that is nearly a known one is mistyped."""
    names = set(known)
    mistyped = {
        name: near[0]
        for name in sorted(set(given) - names)
        if (near := difflib.get_close_matches(name, names, n=1, cutoff=0.9))
    }
    if not mistyped:
        return well("settings", f"{len(names.intersection(given))} given")
    remedy = "; ".join(f"did you mean {near} for {name}?" for name, near in mistyped.items())
    return warn("settings", f"{', '.join(mistyped)} unknown and ignored", remedy)


def disk(free_bytes: int, folder: str) -> Finding:
    """Judge the space that is left for the stack's data."""
    found = f"{free_bytes / GIB:.1f} GiB free in {folder}"
    remedy = "make room, or set KAPPA_HOME to a folder on a larger disk."
    if free_bytes < _LEAST_DISK:
        return bad("disk", found, remedy)
    return warn("disk", found, remedy) if free_bytes < _GOOD_DISK else well("disk", found)


def memory(available_bytes: int, needed_bytes: int) -> Finding:
    """Judge the memory that is left for what does not run yet."""
    found = f"{available_bytes / GIB:.1f} GiB available, {needed_bytes / GIB:.1f} GiB needed"
    if available_bytes >= needed_bytes:
        return well("memory", found)
    return warn("memory", found, "end other programs: the TaskManager would be killed first.")


def clock(service: str, ahead_seconds: float) -> Finding:
    """Judge how far the clock of `service` is ahead of this machine's."""
    subject, found = f"clock of {service}", f"{ahead_seconds:+.1f} s"
    remedy = (
        "keep both on time with NTP: events more than ten minutes ahead of Kafka are refused, and "
        "ages are measured between machines."
    )
    if abs(ahead_seconds) > _MOST_SKEW:
        return bad(subject, found, remedy)
    return (
        warn(subject, found, remedy) if abs(ahead_seconds) > _SMALL_SKEW else well(subject, found)
    )


def flink(version: str, ours: str, found: str) -> Finding:
    """Judge the version of the cluster by that of the client that sends it jobs."""
    if version == ours:
        return well("flink", found)
    return bad("flink", found, f"jobs are sent by Flink {ours}: let the cluster run that.")


def versions(installed: Mapping[str, str | None], wanted: Mapping[str, str]) -> Finding:
    """Judge the installed packages by those that are pinned; None is a missing one."""
    differing = [
        f"{name} {installed.get(name) or 'missing'} instead of {pin}"
        for name, pin in sorted(wanted.items())
        if installed.get(name) != pin
    ]
    if not differing:
        return well("packages", f"{len(wanted)} as pinned")
    shown = ", ".join(differing[:5]) + (" …" if len(differing) > 5 else "")
    return bad("packages", shown, "run `make install`.")
