"""Wait for what may still come, but not for each thing anew. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Patience:
    """Grants one wait of `seconds`, then none until `pause` seconds after its end.

    However many things are missing, they are waited for together and the waits together take no
    more than seconds / (seconds + pause) of the time.
    """

    seconds: float
    pause: float
    _until: float = float("-inf")

    def left(self, now: float) -> bool:
        """Tell whether to wait on at `now`, a monotonic time in seconds; may begin a new wait."""
        if now >= self._until + self.pause:
            self._until = now + self.seconds
        return now < self._until
