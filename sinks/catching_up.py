"""Load until ClickHouse has what the topics held at the start, with a progress bar."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from rich.progress import Progress, TaskID

from deploy.console import progress_bar
from deploy.settings import Settings
from sinks.clickhouse import ClickHouse
from sinks.lag import LagReader
from sinks.loader import group_of, open_loader, stop_signal
from sinks.member import LoaderStopped

_CHECK_SECONDS = 0.5
# As long as the group waits for a member that hangs.
_STUCK_SECONDS = 300.0


class CatchUp:
    """Compares the loaders' offsets with the ends that the topics had when it began.

    Another loader of the group may do a part of the work, so only what is committed counts.
    """

    def __init__(self, reader: LagReader, group: str, prefix: str, clickhouse: ClickHouse) -> None:
        self._reader = reader
        self._group, self._prefix = group, prefix
        self._clickhouse = clickhouse
        self._ends = {(one.topic, one.partition): one.end for one in reader.loader(group, prefix)}
        self.total = self.missing()

    def missing(self) -> int:
        """Return how many offsets before those ends are not loaded yet."""
        lags = self._reader.loader(self._group, self._prefix, self._clickhouse.table_ids())
        return sum(
            max(0, self._ends.get((one.topic, one.partition), 0) - one.committed) for one in lags
        )


def catch_up() -> int:
    """Load what the topics hold by now; return how many records that were."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    settings = Settings()
    group = group_of(settings)
    goal = CatchUp(
        LagReader(settings.kafka_client), group, settings.topic_prefix, ClickHouse(settings)
    )
    if goal.total:
        with progress_bar(unit="records") as progress:
            task = progress.add_task("Loading", total=goal.total)
            open_loader(settings).run(_reached(goal, progress, task))
    return goal.total


def _reached(goal: CatchUp, progress: Progress, task: TaskID) -> Callable[[], bool]:
    """Return whether to stop: because all is there, or because of a signal."""
    interrupted = stop_signal()
    checked, before, moved = 0.0, -1, time.monotonic()

    def reached() -> bool:
        nonlocal checked, before, moved
        if interrupted():
            raise KeyboardInterrupt
        if time.monotonic() - checked < _CHECK_SECONDS:
            return False
        checked = time.monotonic()
        missing = goal.missing()
        if missing != before:
            before, moved = missing, time.monotonic()
        elif missing and time.monotonic() - moved > _STUCK_SECONDS:
            raise LoaderStopped(
                f"{missing:,} records stay unread by another loader of the group; see "
                "`kappa logs loader`."
            )
        progress.update(task, completed=goal.total - missing)
        return missing == 0

    return reached
