"""Run `kappa`, but wait for ever where the journal is to hear that one step is done.

Whoever is to die in a step that takes some milliseconds is in it still when the signal comes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from typing import Any

from deploy import cli
from replay.control import Control


def main() -> None:
    """Hold the step that is named first, and do what the other words say."""
    held = sys.argv.pop(1)
    write = Control.write

    def write_but(
        control: Control, replay_id: int, step: str, state: str, detail: Mapping[str, Any]
    ) -> None:
        if (step, state) == (held, "done"):
            threading.Event().wait()
        write(control, replay_id, step, state, detail)

    Control.write = write_but  # type: ignore[method-assign]
    cli.main()


if __name__ == "__main__":
    main()
