"""A stack that these tests may kill: the session's own is left alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from deploy.settings import Settings
from deploy.stack import Stack, all_parts

_BASES = range(20_000, 24_000, 500)


@pytest.fixture(scope="package")
def own_settings(tmp_path_factory: pytest.TempPathFactory, processes: None) -> Settings:
    home = tmp_path_factory.mktemp("own")
    for base in _BASES:
        settings = Settings(home=home, port_base=base)
        if not any(port for part in all_parts(settings) for port in part.taken_ports()):
            return settings
    raise RuntimeError(f"no free ports in {_BASES}")


@pytest.fixture(scope="package")
def own_stack(own_settings: Settings) -> Iterator[Stack]:
    """A stack whose processes a test may kill; call `up()` first, a former test may have."""
    stack = Stack(own_settings)
    yield stack
    stack.down()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that holds a port."""
    with socket.socket() as held:
        yield held
