"""The usual traffic of a page: an exponentially weighted mean of its minutes. No I/O."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

OLD_WEIGHT, NEW_WEIGHT = 0.95, 0.05
FIRST_MINUTES = 10
"""How many minutes of a page must be known before another is judged by them."""

_DECIMALS = 9
# Their means and places stay in the processor's cache.
_AT_ONCE = 1 << 14

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


def baselines(views: Float64s, begins: Int64s, ends: Int64s) -> Float64s:
    """Return the mean of each of some slices `views[begin:end]`, minutes in ascending order.

    A mean begins with the slice's first minute; each further one gives 0.95 * mean + 0.05 * views.
    NaN where a slice has fewer than `FIRST_MINUTES`. Each mean is that of its slice alone, to the
    last bit: it does not depend on what else is asked for.
    """
    means = np.full(len(begins), np.nan)
    judged = np.flatnonzero(ends - begins >= FIRST_MINUTES)
    added = NEW_WEIGHT * views
    for start in range(0, len(judged), _AT_ONCE):
        places = judged[start : start + _AT_ONCE]
        # The longest slices first: those that still have a minute stand together.
        places = places[np.argsort(begins[places] - ends[places], kind="stable")]
        first, sizes = begins[places], ends[places] - begins[places]
        mean = views[first]
        longer = np.searchsorted(-sizes, -np.arange(1, sizes[0]))
        for minute, count in enumerate(longer.tolist(), 1):
            mean[:count] *= OLD_WEIGHT
            mean[:count] += added[minute:].take(first[:count])
        means[places] = mean
    # Rounded, so that what is just so many times the mean is not more than that by an error.
    return np.round(means, _DECIMALS)
