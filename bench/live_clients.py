"""How many live clients one server keeps up with, and whether those that don't read matter.

python -m bench.live_clients --clients 500 --seconds 30
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from websockets.asyncio.client import ClientConnection, connect

from deploy.console import CommandError, print_json, print_table, run_alone
from deploy.settings import PROJECT_ROOT, Settings

_START_SECONDS = 90.0
_JOINING = 25


@dataclass(frozen=True)
class Measured:
    """One run: `missed` pictures of those due, delays in ms from a picture's making to a client.

    `server_cpu` is in cores.
    """

    clients: int
    stuck: int
    seconds: float
    pictures: int
    missed: int
    picture_bytes: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_most_ms: float
    server_cpu: float
    server_mib: float


@dataclass
class _Seen:
    delays: list[float] = field(default_factory=list)
    missed: int = 0
    size: int = 0


def measure(settings: Settings, clients: int, stuck: int, seconds: float) -> Measured:
    """Run a server over `settings`' stack and let clients join it from this process."""
    own = settings.model_copy(update={"serving_port": settings.port(302)})
    server = subprocess.Popen(
        [sys.executable, "-m", "serving.server"],
        cwd=PROJECT_ROOT,
        env=os.environ | own.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await_server(own.serving)
        with ExitStack() as held:
            for _ in range(stuck):
                held.enter_context(_stuck_client(own))
            return asyncio.run(_watch(own, psutil.Process(server.pid), clients, stuck, seconds))
    finally:
        server.terminate()
        server.wait(30)


async def _watch(
    settings: Settings, server: psutil.Process, clients: int, stuck: int, seconds: float
) -> Measured:
    address = f"ws{settings.serving.removeprefix('http')}/api/live"
    joined: list[ClientConnection] = []
    for start in range(0, clients, _JOINING):
        some = range(start, min(clients, start + _JOINING))
        joined += await asyncio.gather(
            *(connect(address, proxy=None, compression=None, open_timeout=60) for _ in some)
        )
    seen = _Seen()
    settled = time.time() + 3
    times = server.cpu_times()
    began = time.monotonic()
    await asyncio.gather(*(_read(one, seen, settled, settled + seconds) for one in joined))
    after = server.cpu_times()
    used = after.user + after.system - times.user - times.system
    memory = server.memory_info().rss / 2**20
    took = time.monotonic() - began
    await asyncio.gather(*(one.close() for one in joined))
    p50, p99 = np.percentile(seen.delays, (50, 99))
    return Measured(
        clients=clients,
        stuck=stuck,
        seconds=seconds,
        pictures=len(seen.delays),
        missed=seen.missed,
        picture_bytes=seen.size,
        delay_p50_ms=round(float(p50), 1),
        delay_p99_ms=round(float(p99), 1),
        delay_most_ms=round(max(seen.delays), 1),
        server_cpu=round(used / took, 2),
        server_mib=round(memory),
    )


async def _read(client: ClientConnection, seen: _Seen, since: float, until: float) -> None:
    """Note the delay of every picture that comes between two moments, and gaps in their numbers."""
    last = 0
    while (now := time.time()) < until:
        text = await asyncio.wait_for(client.recv(), 60)
        now = time.time()
        picture = json.loads(text)
        if now >= since:
            seen.delays.append(1000 * now - picture["at"])
            seen.missed += max(0, picture["number"] - last - 1) if last else 0
            seen.size = len(text)
        last = picture["number"]


def _stuck_client(settings: Settings) -> socket.socket:
    """Return the connection of a client that joins and never reads."""
    place = (settings.serving_host, settings.serving_http_port)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(place)
    client.sendall(
        f"GET /api/live HTTP/1.1\r\nhost: {place[0]}:{place[1]}\r\nupgrade: websocket\r\n"
        "connection: upgrade\r\nsec-websocket-version: 13\r\n"
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return client


def _await_server(address: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(f"{address}/readyz", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise CommandError(f"No server is ready at {address}; is the stack up?") from error
        time.sleep(0.2)


def main(
    clients: Annotated[int, typer.Option(min=1)] = 500,
    stuck: Annotated[int, typer.Option(min=0, help="Clients that join and never read.")] = 20,
    seconds: Annotated[float, typer.Option(min=1)] = 30,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure on the running embedded stack (`kappa up` first); client and server share it.

    Example: python -m bench.live_clients --clients 500
    """
    found = measure(Settings(), clients, stuck, seconds)
    if as_json:
        print_json(asdict(found))
        return
    rows = [(name.replace("_", " "), value) for name, value in asdict(found).items()]
    print_table("Live clients", ("", "measured"), rows)


if __name__ == "__main__":
    run_alone(main)
