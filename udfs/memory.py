"""Memory of Python workers: what one batch frees serves the next one."""

from __future__ import annotations

import ctypes

import pyarrow as pa

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT = 256 << 20
_MAPPED_FROM = 32 << 20


def keep_freed_memory() -> None:
    """Have this process keep up to 256 MB that it has freed, instead of asking for pages anew.

    A batch makes some hundred arrays of a megabyte. Given back to the system each time, the first
    touch of their pages costs more than the arithmetic on them. Only glibc is asked for it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for parameter, value in (
        (_TRIM_THRESHOLD, _KEPT),
        (_MMAP_THRESHOLD, _MAPPED_FROM),
        # Arenas of threads give theirs back whatever they are told.
        (_ARENA_MAX, 1),
    ):
        mallopt(parameter, value)
    pa.set_memory_pool(pa.system_memory_pool())
