"""What the API refuses, each as one sentence with a status. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ApiError(Exception):
    """An answer other than the one asked for; `status` is that of HTTP."""

    def __init__(self, status: int, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.retry_after = retry_after


def bad_request(sentence: str) -> ApiError:
    """Return the refusal of a request that can't be answered as it is."""
    return ApiError(400, sentence)


def unknown(kind: str, name: str, known: Iterable[str], status: int = 404) -> ApiError:
    """Return the refusal of a name that is not among `known`, with the nearest one that is."""
    names = sorted(known)
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    near = difflib.get_close_matches(shown, names, n=1, cutoff=0.4)
    if near:
        hint = f'did you mean "{near[0]}"?'
    elif names:
        hint = f"there are: {', '.join(names)}."
    else:
        hint = "nothing is loaded yet: start a job with kappa submit."
    return ApiError(status, f'There is no {kind} "{shown}"; {hint}')
