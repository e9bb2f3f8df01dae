"""Ask somebody who may never answer, and wait for no longer than one cares to."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Apart(Generic[T]):
    """Runs `ask` in a thread of its own, one call at a time.

    A call that was not waited for to its end goes on, and gives the next answer.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._asked: Future[T] | None = None

    def answer(self, seconds: float) -> T:
        """Return what `ask` does or raise what it raises; `TimeoutError` after `seconds`."""
        if self._asked is None:
            self._asked = Future()
            # One that hangs must not keep the process from its end.
            Thread(target=self._run, args=(self._asked,), daemon=True).start()
        try:
            return self._asked.result(timeout=seconds)
        finally:
            if self._asked.done():
                self._asked = None

    def _run(self, asked: Future[T]) -> None:
        try:
            asked.set_result(self._ask())
        except BaseException as error:
            asked.set_exception(error)
