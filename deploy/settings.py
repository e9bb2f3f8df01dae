"""Addresses, secrets and folders, read once from the environment at an entry point."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

PROJECT_ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ".env"
"""Gives settings, too, in the folder that a command is run in."""
SECRETS_DIR = "KAPPA_SECRETS_DIR"
"""Names a folder whose files hold settings, named like their variables in lower case."""
PREFIX = "KAPPA_"
_LAST_PORT = 65535


def _made_of(characters: str, said: str) -> AfterValidator:
    """Return what refuses a value with any but `characters`, a class of a pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(f"[{characters}]*", value):
            raise ValueError(f"use only {said}")
        return value

    return AfterValidator(check)


def _check_urls(value: str) -> str:
    """Refuse what is no list of HTTP addresses, and quote none: they may hold secrets."""
    if value and not _urls(value):
        raise ValueError("give an address such as http://host:8081, or leave it empty")
    if not all(re.match(r"https?://[^\s/]", url) for url in _urls(value)):
        raise ValueError("give addresses with http:// or https://, such as http://host:8081")
    return value


def _urls(value: str) -> tuple[str, ...]:
    """Return the addresses in a list with commas, no trailing slashes."""
    return tuple(url.strip().rstrip("/") for url in value.split(",") if url.strip())


_Urls = Annotated[str, AfterValidator(_check_urls)]


class Settings(BaseSettings):
    """All settings; each can be given as `KAPPA_<NAME>` in the environment or in `.env`.

    An address left empty is that of the embedded stack, whose ports count up from `port_base`.
    With `KAPPA_SECRETS_DIR`, a setting may also be a file `kappa_<name>` in that folder.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        extra="ignore",
        # A refusal quotes what it refuses, which may be a secret.
        hide_input_in_errors=True,
    )

    home: Path = Field(
        default=PROJECT_ROOT / ".kappa", description="Data, logs and process records."
    )
    namespace: Annotated[str, _made_of("a-z0-9_", "small letters, digits and underscores")] = Field(
        default="",
        description="Prefix of topics, databases and job names, so environments share a stack.",
    )
    port_base: int = Field(default=18000, ge=1024, le=65000, description="First embedded port.")

    ca_file: str = Field(
        default="",
        description="PEM file of the authorities that servers' certificates are checked against.",
    )
    kafka_bootstrap: str = Field(default="", description="Kafka bootstrap servers, host:port,…")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How Kafka is spoken to: also SSL, SASL_PLAINTEXT, SASL_SSL.",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="With SASL: also PLAIN or SCRAM-SHA-256."
    )
    kafka_sasl_username: str = Field(default="", description="User of Kafka, with SASL.")
    kafka_sasl_password: SecretStr = Field(default=SecretStr(""), description="Its password.")
    registry_url: _Urls = Field(default="", description="Schema registry, Confluent API.")
    registry_user: str = Field(default="", description="User of the registry, if it asks for one.")
    registry_password: SecretStr = Field(default=SecretStr(""), description="Its password.")
    flink_url: _Urls = Field(
        default="",
        description="Flink REST addresses, comma-separated; new jobs go to the first.",
    )
    flink_home: str = Field(
        default="", description="Flink distribution whose client submits jobs, configured there."
    )
    clickhouse_host: str = Field(
        default="127.0.0.1",
        description="Host of ClickHouse; where it or the port is given, none starts here.",
    )
    clickhouse_port: int = Field(
        default=0, ge=0, le=_LAST_PORT, description="ClickHouse HTTP port; the embedded one's."
    )
    clickhouse_tls: bool = Field(default=False, description="Whether that port speaks TLS.")
    clickhouse_names: str = Field(
        default="",
        description="Host names under which the embedded one is reached beside localhost, with "
        'commas; "*" for any.',
    )
    clickhouse_cluster: Annotated[
        str, _made_of("A-Za-z0-9_", "letters, digits and underscores")
    ] = Field(
        default="",
        description="Cluster whose shards and replicas hold the tables; one server without.",
    )
    clickhouse_database: str = Field(
        default="kappa", description="Database; with a namespace, what its own one starts with."
    )
    clickhouse_user: str = Field(default="kappa", description="User who makes and fills tables.")
    clickhouse_password: SecretStr = Field(default=SecretStr("kappa"), description="Its password.")
    clickhouse_reader: str = Field(default="reader", description="User who may only read.")
    clickhouse_reader_password: SecretStr = Field(
        default=SecretStr("reader"), description="Its password."
    )
    postgres_dsn: SecretStr = Field(default=SecretStr(""), description="Control plane database.")
    postgres_password: SecretStr = Field(
        default=SecretStr(""), description="Its password, where the DSN has none."
    )

    archive_url: str = Field(
        default="",
        description="Where events are archived, a folder or an s3:// URI; below the home.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address on which loader and monitor serve their metrics."
    )

    serving_host: str = Field(
        default="127.0.0.1", description="Address on which the API and the dashboard listen."
    )
    serving_port: int = Field(
        default=0, ge=0, le=_LAST_PORT, description="Their port; the embedded one."
    )
    serving_names: str = Field(
        default="",
        description='Host names under which they are reached, with commas; "*" for any.',
    )

    # Flink takes none below ten milliseconds.
    checkpoint_seconds: float = Field(
        default=2.0, ge=0.01, allow_inf_nan=False, description="Checkpoint interval."
    )
    early_fire_seconds: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="How often open windows and totals are written; 0 for never, and for totals "
        "ten times a second. While a job catches up open windows wait, and totals come less often.",
    )
    parallelism: int = Field(default=2, ge=1, description="Default parallelism of a job.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read files of the secrets folder after the environment."""
        folder = os.environ.get(SECRETS_DIR)
        files = (
            SecretsSettingsSource(settings_cls, secrets_dir=folder)
            if folder and Path(folder).is_dir()
            else None
        )
        return (init_settings, env_settings, dotenv_settings, *filter(None, [files]))

    @model_validator(mode="after")
    def _check_secrets_dir(self) -> Settings:
        folder = os.environ.get(SECRETS_DIR)
        if folder and not Path(folder).is_dir():
            # Without its files the passwords would be those of the embedded stack.
            raise ValueError(f"{SECRETS_DIR} is {folder}, which is no folder.")
        return self

    @model_validator(mode="after")
    def _check_ca_file(self) -> Settings:
        if self.ca_file and not Path(self.ca_file).is_file():
            raise ValueError(f"KAPPA_CA_FILE is {self.ca_file}, which is no file.")
        return self

    @model_validator(mode="after")
    def _check_sasl(self) -> Settings:
        given = self.kafka_sasl_username and self.kafka_sasl_password.get_secret_value()
        if self.kafka_security_protocol.startswith("SASL") and not given:
            raise ValueError(
                f"{self.kafka_security_protocol} needs KAPPA_KAFKA_SASL_USERNAME and "
                "KAPPA_KAFKA_SASL_PASSWORD."
            )
        return self

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that reads them again.

        Secrets that are files stay there: a job must refer to what other machines have, too. Files
        and folders are named whole, for that process may begin in another folder, and links are not
        followed: where they lead differs from pod to pod.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        if self.ca_file:
            values["ca_file"] = os.path.abspath(self.ca_file)
        folder = os.environ.get(SECRETS_DIR)
        secrets = {SECRETS_DIR: os.path.abspath(folder)} if folder else {}
        return secrets | {
            variable(name): value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(value.expanduser().resolve() if isinstance(value, Path) else value)
            for name, value in values.items()
            if not (isinstance(value, SecretStr) and _is_in_file(name, value))
        }

    @property
    def embedded(self) -> bool:
        """Whether any service is the embedded stack's, as no other address of it is given."""
        given = self.kafka_bootstrap, self.registry_url, self.flink_url
        return not (all(given) and self.postgres_dsn.get_secret_value())

    def port(self, offset: int) -> int:
        """Port of an embedded part, by its place after `port_base`."""
        return self.port_base + offset

    @cached_property
    def kafka(self) -> str:
        """Kafka bootstrap servers."""
        return self.kafka_bootstrap or f"127.0.0.1:{self.port(92)}"

    @property
    def kafka_client(self) -> dict[str, Any]:
        """Settings that every Kafka client of ours starts from, in librdkafka's names."""
        client = {"bootstrap.servers": self.kafka}
        protocol = self.kafka_security_protocol
        if protocol == "PLAINTEXT":
            return client
        client["security.protocol"] = protocol
        if protocol.endswith("SSL") and self.ca_file:
            client["ssl.ca.location"] = self.ca_file
        if protocol.startswith("SASL"):
            client["sasl.mechanism"] = self.kafka_sasl_mechanism
            client["sasl.username"] = self.kafka_sasl_username
            client["sasl.password"] = self.kafka_sasl_password.get_secret_value()
        return client

    @cached_property
    def registry(self) -> str:
        """Base address of the schema registry's Confluent API, no trailing slash."""
        given = self.registry_url or f"http://127.0.0.1:{self.port(81)}/apis/ccompat/v7"
        return given.rstrip("/")

    @property
    def registry_access(self) -> dict[str, Any]:
        """Address, user and authority of the registry, as `Registry` takes them."""
        user, password = self.registry_user, self.registry_password.get_secret_value()
        return {
            "url": self.registry,
            "auth": (user, password) if user else None,
            "ca_file": self.ca_file,
        }

    @property
    def database(self) -> str:
        """ClickHouse database of the namespace."""
        base = self.clickhouse_database
        return f"{base}_{self.namespace}" if self.namespace else base

    @property
    def archive(self) -> str:
        """Folder or URI of the archive of events."""
        return self.archive_url or str(self.home.expanduser() / "archive")

    @property
    def topic_prefix(self) -> str:
        """What every topic of the namespace starts with."""
        return f"{self.namespace}." if self.namespace else ""

    @cached_property
    def flink_clusters(self) -> tuple[str, ...]:
        """Base addresses of the REST APIs of all Flink clusters, no trailing slashes."""
        return _urls(self.flink_url or f"http://127.0.0.1:{self.port(80)}")

    @cached_property
    def flink(self) -> str:
        """Base address of the REST API of the cluster that new jobs go to, no trailing slash."""
        return self.flink_clusters[0]

    @property
    def clickhouse_embedded(self) -> bool:
        """Whether ClickHouse is the embedded stack's, as no other address of it is given."""
        return not self.clickhouse_port and self.clickhouse_host in ("127.0.0.1", "localhost")

    @cached_property
    def clickhouse_http_port(self) -> int:
        """Port of ClickHouse's HTTP interface."""
        return self.clickhouse_port or self.port(123)

    @property
    def serving_http_port(self) -> int:
        """Port of the API and the dashboard."""
        return self.serving_port or self.port(300)

    @property
    def serving(self) -> str:
        """Address of the dashboard and the API, no trailing slash."""
        return f"http://{reached(self.serving_host, self.serving_http_port)}"

    @cached_property
    def postgres(self) -> str:
        """DSN of the control plane database."""
        given = self.postgres_dsn.get_secret_value()
        dsn = given or f"postgresql://postgres@127.0.0.1:{self.port(432)}/postgres"
        password = self.postgres_password.get_secret_value()
        if not password:
            return dsn
        from psycopg import ProgrammingError
        from psycopg.conninfo import make_conninfo

        try:
            return make_conninfo(dsn, password=password)
        except ProgrammingError:
            # The driver quotes what it can't read. Control says what is wrong when it connects.
            return dsn


def reached(host: str, port: int) -> str:
    """Return where this machine reaches what listens on `host`, as a URL has it."""
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]:{port}" if ":" in here else f"{here}:{port}"


def variable(name: str) -> str:
    """Return the variable of the environment that gives the setting `name`."""
    return f"{PREFIX}{name.upper()}"


def _is_in_file(name: str, secret: SecretStr) -> bool:
    """Whether a process started from here reads this secret from the secrets folder."""
    folder = os.environ.get(SECRETS_DIR)
    if not folder or variable(name) in os.environ:
        return False
    file = Path(folder) / variable(name).lower()
    return file.is_file() and file.read_text().strip() == secret.get_secret_value()


def given() -> set[str]:
    """Return the variables that are given here, in the environment, `.env` or as files."""
    from dotenv import dotenv_values

    folder = os.environ.get(SECRETS_DIR)
    files = (file.name.upper() for file in Path(folder).iterdir()) if folder else ()
    return {*os.environ, *dotenv_values(ENV_FILE), *files}


def refusal(error: ValidationError) -> str:
    """Return what is wrong with the environment in one sentence, which quotes no value."""
    said = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = variable(str(one["loc"][0])) if one["loc"] else ""
        text = one["msg"].removeprefix("Value error, ").rstrip(".")
        said.append(f"{name}: {text[:1].lower()}{text[1:]}" if name else text)
    return f"{'; '.join(said)}."
