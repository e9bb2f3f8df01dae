"""Limits of consumers where Kafka's own tools, which set them, are not installed. No stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import java
from deploy.settings import Settings
from replay.pace import Limits
from replay.quota import QuotaFailed, clear_groups, limit_consumers
from replay.throttle import Throttle

GROUP = "kappa-page_views.v2"


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(java, "JARS", tmp_path)
    return f"Kafka can't be asked for quotas: {tmp_path}/kafka is missing: run `make jars`"


def test_what_is_dropped_is_dropped_without_the_jars(missing: str) -> None:
    said: list[str] = []
    clear_groups(Settings(), [GROUP], said.append)
    (sentence,) = said
    assert sentence.startswith(missing)
    assert sentence.endswith("may be left there; they do no harm.")


def test_a_build_goes_on_without_the_jars_unless_a_limit_is_asked_for(missing: str) -> None:
    said: list[str] = []
    throttle = Throttle(Settings(), [GROUP], "page_views", ["events"], Limits(None, 1_000, 30.0))
    throttle.begin(again=True, say=said.append)
    (sentence,) = said
    assert sentence.startswith(missing)
    assert sentence.endswith("A limit that a killed build set may hold this one back still.")
    with pytest.raises(QuotaFailed, match="is missing: run `make jars`"):
        limit_consumers(Settings(), [f"{GROUP}-0"], 1_024)
