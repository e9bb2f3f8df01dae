"""A namespace, a stream and a registry client of each test's own, on the session's stack."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from deploy.settings import Settings
from deploy.stack import Stack
from schemas.registry import Registry
from schemas.streams import PAGE_VIEWS, Stream


@pytest.fixture
def settings(stack: Stack) -> Settings:
    return stack.settings.model_copy(update={"namespace": f"t{uuid.uuid4().hex[:8]}"})


@pytest.fixture
def stream(settings: Settings) -> Stream:
    return replace(PAGE_VIEWS, namespace=settings.namespace)


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    with Registry(settings.registry) as client:
        yield client
