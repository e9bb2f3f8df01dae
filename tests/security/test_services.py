"""Each client of ours over TLS, with a password, and refused without the one or the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from deploy.settings import Settings
from jobs.commits import Coordinators
from replay.control import Control, ControlUnavailable
from replay.quota import free_consumers, limit_consumers
from schemas.registry import Registry, RegistryError, RegistryUnavailable
from schemas.topics import KafkaUnavailable, topic_names
from sinks.clickhouse import ClickHouse, ClickHouseFailed
from tests.endpoint.running import OWNER, OWNER_PASSWORD, Endpoint
from tests.harness import wait_for
from tests.security.conftest import PATIENCE, SECRET
from tests.security.servers import Authority, Schemas, postgresql, registry, tls_front

pytestmark = pytest.mark.stack


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes clients of Kafka give up soon, once who is let in has been."""

    def give_up_soon() -> None:
        monkeypatch.setattr("schemas.topics._TIMEOUT_SECONDS", 3.0)
        monkeypatch.setattr("jobs.commits._TIMEOUT_MS", 3_000)

    return give_up_soon


def test_kafka_lets_in_who_has_the_password(
    broker: dict[str, str], impatient: Callable[[], None]
) -> None:
    assert (
        topic_names(Settings(_env_file=None, kafka_sasl_password=SECRET, **broker).kafka_client)
        is not None
    )
    wrong = Settings(_env_file=None, kafka_sasl_password="wrong", **broker)
    impatient()
    with pytest.raises(KafkaUnavailable):
        topic_names(wrong.kafka_client)


def test_kafkas_transactions_are_listed_to_who_has_the_password(
    broker: dict[str, str], impatient: Callable[[], None]
) -> None:
    right = Settings(_env_file=None, kafka_sasl_password=SECRET, **broker)
    assert Coordinators(right.kafka_client).aborted() == set()
    wrong = Settings(_env_file=None, kafka_sasl_password="wrong", **broker)
    impatient()
    with pytest.raises(KafkaUnavailable):
        Coordinators(wrong.kafka_client).aborted()


def test_kafka_with_a_certificate_of_somebody_else_is_not_trusted(
    broker: dict[str, str], tmp_path: Path, impatient: Callable[[], None]
) -> None:
    impatient()
    given = broker | {"ca_file": str(Authority(tmp_path).ca_file)}
    settings = Settings(_env_file=None, kafka_sasl_password=SECRET, **given)
    with pytest.raises(KafkaUnavailable):
        topic_names(settings.kafka_client)


def test_kafkas_own_java_tools_log_in(
    broker: dict[str, str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(secrets))
    settings = Settings(_env_file=None, **broker)
    limit_consumers(settings, ["kappa-clicks-0"], 5_000_000)
    free_consumers(settings, ["kappa-clicks-0"])


def test_the_registry_is_asked_over_tls_as_its_user(authority: Authority) -> None:
    schemas = Schemas("kappa", SECRET)
    with registry(authority, schemas) as address:
        given = {"registry_url": address, "registry_user": "kappa", "registry_password": SECRET}
        trusting = Settings(_env_file=None, ca_file=str(authority.ca_file), **given)
        with Registry(**trusting.registry_access) as client:
            assert client.register("clicks", {"type": "string"}) == 1
            assert client.schema_by_id(1) == {"type": "string"}
        stranger = trusting.model_copy(update={"registry_user": "someone"})
        with (
            Registry(**stranger.registry_access) as client,
            pytest.raises(RegistryError, match="does not let us"),
        ):
            client.register("clicks", {"type": "string"})
        doubting = Settings(_env_file=None, **given)
        with (
            Registry(**doubting.registry_access, retry_for=0.0) as client,
            pytest.raises(RegistryUnavailable, match="certificate"),
        ):
            client.register("clicks", {"type": "string"})


def test_clickhouse_is_asked_over_tls(authority: Authority, tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint")
    endpoint.start()
    try:
        with tls_front(authority, endpoint.port) as port:
            given = {
                "clickhouse_port": port,
                "clickhouse_tls": True,
                "clickhouse_user": OWNER,
                "clickhouse_password": OWNER_PASSWORD,
                "clickhouse_database": "default",
            }
            settings = Settings(_env_file=None, ca_file=str(authority.ca_file), **given)
            trusting = ClickHouse(settings)
            assert trusting.query("SELECT 1 AS one").rows == [(1,)]
            trusting.close()
            with pytest.raises(ClickHouseFailed, match="certificate"):
                ClickHouse(Settings(_env_file=None, **given)).query("SELECT 1")
    finally:
        endpoint.stop()


def test_postgresql_is_asked_over_tls_with_a_password(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The embedded server is built without TLS: a front speaks it in its stead.
    folder = tmp_path_factory.mktemp("pg")
    with postgresql(folder, SECRET) as behind, tls_front(authority, behind) as port:
        place = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        dsn = f"{place}?sslmode=verify-full&sslnegotiation=direct"
        trusted = f"{dsn}&sslrootcert={authority.ca_file}"
        settings = Settings(_env_file=None, postgres_dsn=trusted, postgres_password=SECRET)

        def encrypted() -> bool:
            with psycopg.connect(settings.postgres, connect_timeout=5) as connection:
                return connection.pgconn.ssl_in_use

        assert wait_for(encrypted, PATIENCE, "PostgreSQL lets us in")
        with Control(settings.postgres, "secure") as control:
            assert control.replays() == []
        wrong = Settings(_env_file=None, postgres_dsn=trusted, postgres_password="wrong")
        with Control(wrong.postgres, "secure") as control:
            with pytest.raises(ControlUnavailable) as refused:
                control.replays()
            assert SECRET not in str(refused.value)
