"""The usual traffic of a page: an exponentially weighted mean of its minutes. No I/O."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

OLD_WEIGHT, NEW_WEIGHT = 0.95, 0.05
FIRST_MINUTES = 10
"""How many minutes of a page must be known before another is judged by them."""


def baseline(views: npt.NDArray[np.float64]) -> float | None:
    """Return what the last of `views`, by minute in ascending order, is to be compared with.

    The mean begins with the first minute's views; each further minute before the last gives
    0.95 * mean + 0.05 * views. None where fewer than `FIRST_MINUTES` minutes come before the last.
    """
    before = len(views) - 1
    if before < FIRST_MINUTES:
        return None
    weights = OLD_WEIGHT ** np.arange(before - 1, -1, -1.0)
    weights[1:] *= NEW_WEIGHT
    # Rounded, so that what is just so many times the mean is not more than that by an error.
    return round(float(weights @ views[:-1]), 9)
