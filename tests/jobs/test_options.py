"""Options of Kafka tables that follow from how a job is run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.options import JobOptions, idle_option
from schemas.streams import PAGE_VIEWS


@pytest.mark.parametrize(
    ("chosen", "option"),
    [
        (None, "'scan.watermark.idle-timeout' = '300000 ms',"),
        (timedelta(seconds=1.5), "'scan.watermark.idle-timeout' = '1500 ms',"),
        (timedelta(0), ""),
    ],
)
def test_a_partition_is_idle_after_what_was_chosen_or_never(
    chosen: timedelta | None, option: str
) -> None:
    second = timedelta(seconds=1)
    options = JobOptions({}, "", {}, second, second, idle_timeout=chosen)
    assert idle_option(PAGE_VIEWS, options) == option
