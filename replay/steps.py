"""Run a replay's steps so that each is in the journal before it begins and after it ends.

A step may run again after a crash, so each looks first at what is there already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deploy.settings import Settings
from replay.control import Control, ControlUnavailable
from replay.records import ReplayRecord


@dataclass(frozen=True)
class Work:
    """What every step works with: settings, control plane and where to say what happens."""

    settings: Settings
    control: Control
    say: Callable[[str], None] = lambda text: None

    @contextmanager
    def step(self, replay: ReplayRecord, name: str, **detail: Any) -> Iterator[dict[str, Any]]:
        """Journal the step `name` around the block; what the block puts in is kept with "done".

        Raises `Overtaken`, and does nothing, where another process changed the replay.
        """
        self.control.begin_step(replay, name, detail)
        outcome: dict[str, Any] = {}
        try:
            yield outcome
        except ControlUnavailable:
            # It was waited for already, and would not hear of this either.
            raise
        except Exception as error:
            self._failed(replay, name, error)
            raise
        self.control.write(replay.id, name, "done", outcome)

    def _failed(self, replay: ReplayRecord, name: str, error: Exception) -> None:
        try:
            self.control.write(replay.id, name, "failed", {"error": str(error)})
        except Exception as other:
            # The step's own error says more than that it could not be journalled.
            error.add_note(str(other))
