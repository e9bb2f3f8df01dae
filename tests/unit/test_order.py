"""In which order tests run that need a stack."""

from __future__ import annotations

import pytest


def test_faults_are_over_before_others_need_a_stack(request: pytest.FixtureRequest) -> None:
    needing = [item for item in request.session.items if "stack" in _fixtures(item)]
    faults = [item.path.parent.name == "faults" for item in needing]
    assert faults == sorted(faults, reverse=True)


def test_tests_that_need_no_stack_come_first(request: pytest.FixtureRequest) -> None:
    needing = ["stack" in _fixtures(item) for item in request.session.items]
    assert needing == sorted(needing)


def _fixtures(item: pytest.Item) -> list[str]:
    return list(getattr(item, "fixturenames", ()))
