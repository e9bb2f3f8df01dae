"""A stack with a home and ports of its own, which is gone afterwards; whose logs are shown."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.settings import Settings
from deploy.stack import Stack

# Below the ports that the system gives to outgoing connections.
_PORT_BASES = range(25_000, 32_000, 600)
_SHOWN = pytest.StashKey[Stack | None]()


@contextmanager
def own_stack() -> Iterator[Stack]:
    """Yield a stack that is not up yet; afterwards it is down, and its home removed."""
    # A short path: the name of a Unix socket has room for 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="kappa-test-"))
    own = Stack(Settings(home=home, port_base=_free_port_base(home)))
    try:
        yield own
    finally:
        own.down()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def shown(config: pytest.Config, stack: Stack) -> Iterator[None]:
    """Have the logs of `stack` shown where a test that uses it fails meanwhile."""
    before = shown_stack(config)
    config.stash[_SHOWN] = stack
    try:
        yield
    finally:
        config.stash[_SHOWN] = before


def shown_stack(config: pytest.Config) -> Stack | None:
    """Return the stack whose logs are to be shown, if one is up."""
    return config.stash.get(_SHOWN, None)


def _free_port_base(home: Path) -> int:
    # Sessions that begin at the same moment would all find the first one free.
    first = os.getpid() % len(_PORT_BASES)
    for base in (*_PORT_BASES[first:], *_PORT_BASES[:first]):
        parts = Stack(Settings(home=home, port_base=base)).parts
        if all(_is_free(port) for part in parts for port in part.ports):
            return base
    raise RuntimeError(f"no free ports in {_PORT_BASES}; end what holds them.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
