"""The rule of the fraud question for peers whose functions are plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

REMEMBERED = 20
Payment = Sequence[Any]
"""Epoch milliseconds, cents, degrees north, degrees east."""


def judge(history: Sequence[Payment], now: Payment) -> str:
    """Return why a payment is fraud after those of `history`, nothing where it isn't."""
    at, amount, north, east = now
    if not history or amount * len(history) <= 5 * sum(known[1] for known in history):
        return ""
    before, _, from_north, from_east = history[-1]
    n1, n2 = math.radians(from_north), math.radians(north)
    half = math.sin((n2 - n1) / 2) ** 2
    half += math.cos(n1) * math.cos(n2) * math.sin(math.radians(east - from_east) / 2) ** 2
    if at - before > 3_600_000 or 2 * 6371 * math.asin(math.sqrt(half)) <= 1_000:
        return ""
    is_often = len(history) >= 4 and at - history[-4][0] <= 300_000
    return "amount, distance, frequency" if is_often else "amount, distance"
