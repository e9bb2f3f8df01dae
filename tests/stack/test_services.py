"""Whether the Python parts are seen where their settings let them listen."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from deploy.services import services
from deploy.settings import Settings, reached
from sinks.metrics import Health, serve


def has_six() -> bool:
    """Whether this machine has IPv6 at all."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=["127.0.0.1", "127.0.0.2", "0.0.0.0", "::", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Something that answers /metrics and /healthz, by its host and port."""
    host: str = request.param
    if ":" in host and not has_six():
        pytest.skip("no IPv6 on this machine")
    server = serve(CollectorRegistry(), Health(), host, 0)
    yield host, server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("name", "offset"), [("loader", 251), ("monitor", 252), ("serving", 300)])
def test_a_part_is_healthy_where_it_listens_and_its_port_is_taken_there(
    name: str, offset: int, listening: tuple[str, int], tmp_path: Path
) -> None:
    host, port = listening
    settings = Settings(
        home=tmp_path, port_base=port - offset, metrics_host=host, serving_host=host
    )
    (part,) = [one for one in services(settings) if one.name == name]
    assert part.healthy()
    assert list(part.taken_ports()) == [port]


@pytest.mark.parametrize(
    ("given", "embedded"),
    [
        ({}, True),
        ({"clickhouse_host": "localhost"}, True),
        ({"clickhouse_port": 8123}, False),
        ({"clickhouse_host": "clickhouse.example.org"}, False),
    ],
)
def test_a_clickhouse_of_ones_own_is_not_started_a_second_time(
    given: dict[str, Any], embedded: bool, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, **given)
    again = Settings.model_validate(
        {name.removeprefix("KAPPA_").lower(): text for name, text in settings.environment().items()}
    )
    for known in (settings, again):
        names = [part.name for part in services(known)]
        assert names == [*(["clickhouse"] if embedded else []), "loader", "monitor", "serving"]


def test_an_address_is_named_as_this_machine_reaches_it() -> None:
    hosts = ("", "0.0.0.0", "127.0.0.1", "::", "fe80::1", "example.org")
    assert [reached(host, 80) for host in hosts] == [
        "127.0.0.1:80",
        "127.0.0.1:80",
        "127.0.0.1:80",
        "[::1]:80",
        "[fe80::1]:80",
        "example.org:80",
    ]
