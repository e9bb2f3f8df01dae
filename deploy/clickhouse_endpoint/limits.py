"""How much of the machine one request may take, read once from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Limits(BaseSettings):
    """Bounds of the endpoint; each can be given as `KAPPA_ENDPOINT_<NAME>`.

    A reader can lower the bounds of a query by a setting and not raise them; the owner can do
    both.
    """

    model_config = SettingsConfigDict(env_prefix="KAPPA_ENDPOINT_", env_file=".env", extra="ignore")

    max_execution_seconds: int = Field(default=60, ge=1, description="Longest run of a query.")
    max_query_memory_bytes: int = Field(default=4096 * MIB, ge=MIB, description="Memory a query.")
    max_result_bytes: int = Field(
        default=1024 * MIB, ge=MIB, description="Largest answer that is held in memory."
    )
    max_body_bytes: int = Field(
        default=1024 * MIB, ge=1024, description="Largest request body, compressed or not."
    )
    max_statement_bytes: int = Field(
        default=16 * MIB, ge=1024, description="Longest statement, an INSERT's rows not counted."
    )
    client_timeout_seconds: int = Field(
        default=30, ge=1, description="Longest silence of a client amid a request or between two."
    )
    stop_seconds: int = Field(
        default=5, ge=0, description="How long running queries may go on after SIGTERM."
    )
    workers: int = Field(default=64, ge=4, description="Requests served at the same time.")
    max_reads: int = Field(
        default=48, ge=1, description="Queries run at the same time; the other workers can insert."
    )
    read_wait_seconds: float = Field(
        default=5.0, ge=0, description="How long a query waits when all of those run."
    )
    max_sessions: int = Field(default=256, ge=1, description="Sessions kept open.")
