"""What something costs beside something else on the same machine, in the same moment."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def cost(work: Callable[[], object], times: int = 3) -> float:
    """Return the least of the processor seconds that `work` took."""
    return min(_once(work) for _ in range(times))


def _once(work: Callable[[], object]) -> float:
    # Collecting garbage costs by all that other tests left, and not by the work.
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()
