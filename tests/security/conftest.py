"""One authority and one broker that wants TLS and a password, for all tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.settings import Settings
from schemas.topics import topic_names
from tests.harness import wait_for
from tests.security.servers import Authority, kafka

USER, SECRET = "kappa", "Zx7-very-secret-91"
PATIENCE = 120.0


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def broker(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[dict[str, str]]:
    """Settings, without the password, that lead to a running broker."""
    with kafka(tmp_path_factory.mktemp("kafka"), authority, USER, SECRET) as address:
        settings = {
            "kafka_bootstrap": address,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": USER,
            "ca_file": str(authority.ca_file),
        }
        client = Settings(_env_file=None, kafka_sasl_password=SECRET, **settings).kafka_client
        wait_for(lambda: topic_names(client) is not None, PATIENCE, "the broker answers")
        yield settings


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder with the broker's password as a file."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "kappa_kafka_sasl_password").write_text(SECRET)
    return folder
