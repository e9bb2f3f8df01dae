"""TLS, SASL and secrets by settings alone, as each client wants them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from deploy.java_kafka import SHADED, SecretError, java_kafka, write_properties
from deploy.settings import Settings, refusal
from jobs.options import registry_options, table_options

SECRET = "s3cr&t'pass"
CA = __file__
"""Any file that is there."""
SECURE = {
    "KAPPA_KAFKA_BOOTSTRAP": "kafka:9093",
    "KAPPA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAPPA_KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
    "KAPPA_KAFKA_SASL_USERNAME": "kappa",
    "KAPPA_CA_FILE": CA,
}


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that asks for TLS and SASL, and the folder of its secrets."""
    for name, value in SECURE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KAPPA_SECRETS_DIR", str(tmp_path))
    (tmp_path / "kappa_kafka_sasl_password").write_text(SECRET)
    return tmp_path


def test_without_settings_nothing_is_encrypted() -> None:
    settings = Settings(_env_file=None, port_base=20_000)
    assert settings.kafka_client == {"bootstrap.servers": "127.0.0.1:20092"}
    assert java_kafka(settings) == {"bootstrap.servers": "127.0.0.1:20092"}
    assert registry_options(settings) == {}
    assert settings.registry_access["auth"] is None


def test_our_kafka_clients_log_in_over_tls(secure: Path) -> None:
    assert Settings(_env_file=None).kafka_client == {
        "bootstrap.servers": "kafka:9093",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": CA,
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "kappa",
        "sasl.password": SECRET,
    }


def test_java_clients_get_a_reference_to_the_password(secure: Path) -> None:
    made = java_kafka(Settings(_env_file=None), SHADED)
    shaded = "org.apache.flink.kafka.shaded.org.apache.kafka.common"
    assert made == {
        "bootstrap.servers": "kafka:9093",
        "security.protocol": "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": CA,
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.jaas.config": f"{shaded}.security.scram.ScramLoginModule required "
        f'username="kappa" password="${{secret:{secure}:kappa_kafka_sasl_password}}";',
        "config.providers": "secret",
        "config.providers.secret.class": f"{shaded}.config.provider.DirectoryConfigProvider",
    }


def test_a_password_from_the_environment_is_referred_to_as_well(
    secure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPPA_KAFKA_SASL_PASSWORD", SECRET)
    made = java_kafka(Settings(_env_file=None))
    assert 'password="${secret:KAPPA_KAFKA_SASL_PASSWORD}"' in made["sasl.jaas.config"]
    assert made["config.providers.secret.class"].endswith(".EnvVarConfigProvider")
    assert SECRET not in str(made)


def test_a_password_file_that_java_would_misread_is_refused(secure: Path) -> None:
    (secure / "kappa_kafka_sasl_password").write_text(f"{SECRET}\n")
    with pytest.raises(SecretError, match="line break") as refused:
        java_kafka(Settings(_env_file=None))
    assert SECRET not in str(refused.value)


def test_sasl_without_a_password_is_refused_and_no_secret_is_quoted(secure: Path) -> None:
    (secure / "kappa_kafka_sasl_password").unlink()
    (secure / "kappa_clickhouse_password").write_text(SECRET)
    with pytest.raises(ValidationError, match="KAPPA_KAFKA_SASL_PASSWORD") as refused:
        Settings(_env_file=None)
    assert SECRET not in str(refused.value)


def test_a_folder_of_secrets_that_is_not_there_is_refused(
    secure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAPPA_KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    for place in (secure / "nowhere", secure / "kappa_kafka_sasl_password"):
        monkeypatch.setenv("KAPPA_SECRETS_DIR", str(place))
        with pytest.raises(ValidationError) as refused:
            Settings(_env_file=None)
        assert refusal(refused.value) == f"KAPPA_SECRETS_DIR is {place}, which is no folder."


def test_the_environment_goes_before_the_files(
    secure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secure / "kappa_clickhouse_password").write_text("from the file\n")
    assert Settings(_env_file=None).clickhouse_password.get_secret_value() == "from the file"
    monkeypatch.setenv("KAPPA_CLICKHOUSE_PASSWORD", "from the environment")
    assert Settings(_env_file=None).clickhouse_password.get_secret_value() == "from the environment"


def test_postgres_takes_its_password_beside_the_dsn(secure: Path) -> None:
    (secure / "kappa_postgres_password").write_text(SECRET)
    dsn = "postgresql://kappa@db:5432/kappa?sslmode=verify-full"
    settings = Settings(_env_file=None, postgres_dsn=dsn)
    assert conninfo_to_dict(settings.postgres) == {
        "user": "kappa",
        "password": SECRET,
        "host": "db",
        "port": "5432",
        "dbname": "kappa",
        "sslmode": "verify-full",
    }


def test_flinks_registry_client_gets_user_and_authority(secure: Path) -> None:
    settings = Settings(
        _env_file=None,
        registry_url="https://registry:8443/apis/ccompat/v7/",
        registry_user="kappa",
        registry_password=SECRET,
    )
    assert registry_options(settings) == {
        "basic-auth.credentials-source": "USER_INFO",
        "basic-auth.user-info": f"kappa:{SECRET}",
        "ssl.truststore.location": CA,
        "properties.schema.registry.ssl.truststore.type": "PEM",
    }
    assert settings.registry_access == {
        "url": "https://registry:8443/apis/ccompat/v7",
        "auth": ("kappa", SECRET),
        "ca_file": CA,
    }


def test_values_are_quoted_for_flink_and_for_java() -> None:
    assert table_options({"a": "it's", "b": "x"}) == "'a' = 'it''s',\n'b' = 'x'"
    file = io.StringIO()
    write_properties({"user": 'a\\"b'}, file)
    assert file.getvalue() == 'user=a\\\\"b\n'


def test_no_secret_is_shown_with_the_settings(secure: Path) -> None:
    assert SECRET not in repr(Settings(_env_file=None, clickhouse_password=SECRET))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CHECKPOINT_SECONDS", "inf", "input should be a finite number"),
        ("CHECKPOINT_SECONDS", "0.0001", "input should be greater than or equal to 0.01"),
        ("EARLY_FIRE_SECONDS", "inf", "input should be a finite number"),
        ("CLICKHOUSE_PORT", "-1", "input should be greater than or equal to 0"),
        ("CLICKHOUSE_PORT", "99999", "input should be less than or equal to 65535"),
        ("SERVING_PORT", "65536", "input should be less than or equal to 65535"),
        ("FLINK_URL", ",", "give an address such as http://host:8081, or leave it empty"),
        (
            "FLINK_URL",
            "http://a:8081,b",
            "give addresses with http:// or https://, such as http://h",
        ),
        ("REGISTRY_URL", "kappa:hush@registry", "give addresses with http:// or https://, such as"),
        ("NAMESPACE", "Prod", "use only small letters, digits and underscores"),
        ("CLICKHOUSE_CLUSTER", "a-b", "use only letters, digits and underscores"),
    ],
)
def test_what_is_refused_says_what_would_do(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"KAPPA_{name}", value)
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None)
    assert refusal(refused.value).startswith(f"KAPPA_{name}: {said}")


def test_certificates_that_are_not_there_are_told_of_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAPPA_CA_FILE", str(tmp_path / "typo.pem"))
    with pytest.raises(ValidationError, match=r"typo\.pem, which is no file"):
        Settings(_env_file=None)
