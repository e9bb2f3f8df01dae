"""Addresses, secrets and folders, read once from the environment at an entry point."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """All settings; each can be given as `KAPPA_<NAME>` in the environment or in `.env`.

    An address left empty is that of the embedded stack, whose ports count up from `port_base`.
    """

    model_config = SettingsConfigDict(env_prefix="KAPPA_", env_file=".env", extra="ignore")

    home: Path = Field(
        default=PROJECT_ROOT / ".kappa", description="Data, logs and process records."
    )
    namespace: str = Field(
        default="",
        pattern=r"^[a-z0-9_]*$",
        description="Prefix of topics, databases and job names, so environments share a stack.",
    )
    port_base: int = Field(default=18000, ge=1024, le=65000, description="First embedded port.")

    kafka_bootstrap: str = Field(default="", description="Kafka bootstrap servers, host:port,…")
    registry_url: str = Field(default="", description="Schema registry, Confluent API.")
    flink_url: str = Field(default="", description="Flink REST address.")
    clickhouse_host: str = "127.0.0.1"
    clickhouse_port: int = Field(default=0, description="ClickHouse HTTP port.")
    clickhouse_database: str = "kappa"
    clickhouse_user: str = "kappa"
    clickhouse_password: SecretStr = SecretStr("kappa")
    clickhouse_reader: str = Field(default="reader", description="User who may only read.")
    clickhouse_reader_password: SecretStr = SecretStr("reader")
    postgres_dsn: SecretStr = Field(default=SecretStr(""), description="Control plane database.")

    archive_url: str = Field(
        default="", description="Where events are archived: a folder or an s3:// URI."
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address on which the loader serves its metrics."
    )

    serving_host: str = Field(
        default="127.0.0.1", description="Address on which the API and the dashboard listen."
    )
    serving_port: int = Field(default=0, description="Their port.")
    serving_names: str = Field(
        default="",
        description='Host names under which they are reached, with commas; "*" for any.',
    )

    checkpoint_seconds: float = Field(default=2.0, gt=0, description="Checkpoint interval.")
    early_fire_seconds: float = Field(
        default=1.0, ge=0, description="How often open windows are written; 0 for never."
    )
    parallelism: int = Field(default=2, ge=1, description="Default parallelism of a job.")

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that reads them again."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            f"KAPPA_{name.upper()}": value.get_secret_value()
            if isinstance(value, SecretStr)
            else str(value.expanduser().resolve() if isinstance(value, Path) else value)
            for name, value in values.items()
        }

    def port(self, offset: int) -> int:
        """Port of an embedded part, by its place after `port_base`."""
        return self.port_base + offset

    @cached_property
    def kafka(self) -> str:
        """Kafka bootstrap servers."""
        return self.kafka_bootstrap or f"127.0.0.1:{self.port(92)}"

    @property
    def kafka_client(self) -> dict[str, Any]:
        """Settings that every Kafka client of ours starts from."""
        return {"bootstrap.servers": self.kafka}

    @cached_property
    def registry(self) -> str:
        """Base address of the schema registry's Confluent API, no trailing slash."""
        given = self.registry_url or f"http://127.0.0.1:{self.port(81)}/apis/ccompat/v7"
        return given.rstrip("/")

    @property
    def database(self) -> str:
        """ClickHouse database of the namespace."""
        base = self.clickhouse_database
        return f"{base}_{self.namespace}" if self.namespace else base

    @property
    def archive(self) -> str:
        """Folder or URI of the archive of events."""
        return self.archive_url or str(self.home / "archive")

    @property
    def topic_prefix(self) -> str:
        """What every topic of the namespace starts with."""
        return f"{self.namespace}." if self.namespace else ""

    @cached_property
    def flink(self) -> str:
        """Base address of Flink's REST API, no trailing slash."""
        return (self.flink_url or f"http://127.0.0.1:{self.port(80)}").rstrip("/")

    @cached_property
    def clickhouse_http_port(self) -> int:
        """Port of ClickHouse's HTTP interface."""
        return self.clickhouse_port or self.port(123)

    @cached_property
    def serving_http_port(self) -> int:
        """Port of the API and the dashboard."""
        return self.serving_port or self.port(300)

    @property
    def serving(self) -> str:
        """Address of the dashboard and the API, no trailing slash."""
        host = "127.0.0.1" if self.serving_host in ("0.0.0.0", "::") else self.serving_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.serving_http_port}"

    @cached_property
    def postgres(self) -> str:
        """DSN of the control plane database."""
        given = self.postgres_dsn.get_secret_value()
        return given or f"postgresql://postgres@127.0.0.1:{self.port(432)}/postgres"
