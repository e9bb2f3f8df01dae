"""What the shell offers where a command wants the name of a job, a view or a stream."""

from __future__ import annotations

from collections.abc import Iterable


def jobs(incomplete: str) -> list[str]:
    """Return the jobs whose names begin so."""
    from jobs.catalogue import JOBS

    return _beginning(JOBS, incomplete)


def views(incomplete: str) -> list[str]:
    """Return the views whose names begin so."""
    from jobs.catalogue import VIEWS

    return _beginning(VIEWS, incomplete)


def streams(incomplete: str) -> list[str]:
    """Return the streams whose names begin so."""
    from schemas.streams import STREAMS

    return _beginning(STREAMS, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
