"""Give the newest picture to every live client; who is slow misses pictures and delays nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from serving.metrics import ServingMetrics

MAX_CLIENTS = 1000
_SEND_SECONDS, _CLOSE_SECONDS = 15.0, 1.0
_MOST_CHARACTERS = 64
PINGS = 10
"""How many messages a client may send within a second."""
# Close codes of RFC 6455.
_POLICY_VIOLATION, _TOO_BIG, _TRY_LATER = 1008, 1009, 1013


class Hub:
    """The newest picture, and those who wait for a newer one.

    A client holds no more than the picture it is being sent: when that is written it takes the
    newest one, whatever came between.
    """

    def __init__(self, metrics: ServingMetrics) -> None:
        self._metrics = metrics
        self._newer = asyncio.Event()
        self.newest = ""
        self.number = 0
        self.clients = 0

    def publish(self, picture: str) -> None:
        """Let `picture` be the newest."""
        self.newest, self.number = picture, self.number + 1
        waiting, self._newer = self._newer, asyncio.Event()
        waiting.set()
        self._metrics.snapshots.inc()

    async def serve(self, socket: WebSocket, arrived: Callable[[], None]) -> None:
        """Send pictures to an accepted `socket` until it closes; `arrived` is called at once."""
        self.clients += 1
        arrived()
        tasks = [asyncio.create_task(one) for one in (self._send(socket), _answer_pings(socket))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.clients -= 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, socket: WebSocket) -> None:
        # There is one to begin with, unless none was taken yet.
        seen = max(0, self.number - 1)
        while True:
            if self.number == seen:
                await self._newer.wait()
            missed, seen = self.number - seen - 1, self.number
            try:
                await asyncio.wait_for(socket.send_text(self.newest), _SEND_SECONDS)
            except (TimeoutError, RuntimeError, WebSocketDisconnect):
                # Who reads nothing takes no farewell either.
                with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
                    await asyncio.wait_for(socket.close(_TRY_LATER), _CLOSE_SECONDS)
                return
            self._metrics.sent.inc()
            self._metrics.skipped.inc(missed)


async def _answer_pings(socket: WebSocket) -> None:
    """Send back what the client sends, so that it can measure the way; until it leaves."""
    clock = asyncio.get_running_loop().time
    came: deque[float] = deque(maxlen=PINGS)
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await socket.receive_text()
            if len(text) > _MOST_CHARACTERS:
                await socket.close(_TOO_BIG)
                return
            if len(came) == PINGS and clock() - came[0] < 1:
                await socket.close(_POLICY_VIOLATION)
                return
            came.append(clock())
            await socket.send_text(text)


async def refuse(socket: WebSocket, *, full: bool) -> None:
    """Close a socket that is not accepted: an origin that is not ours, or one too many."""
    await socket.close(_TRY_LATER if full else _POLICY_VIOLATION)
