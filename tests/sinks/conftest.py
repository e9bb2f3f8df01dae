"""A namespace for each test that loads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from deploy.stack import Stack
from sinks.clickhouse import ClickHouse
from sinks.sql import identifier
from tests.sinks.loading import Sandbox, changed_settings


@pytest.fixture
def sandbox(stack: Stack) -> Iterator[Sandbox]:
    settings = changed_settings(stack.settings, namespace=f"s{uuid.uuid4().hex[:8]}")
    yield Sandbox(settings)
    # The test may not have made its database, and a request to none is refused.
    clickhouse = ClickHouse(stack.settings)
    clickhouse.command(f"DROP DATABASE IF EXISTS {identifier(settings.database)}")
    clickhouse.close()
