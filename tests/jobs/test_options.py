"""Options of Kafka tables that follow from how a job is run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jobs.options import JobOptions, idle_option, sink_options, source_options
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
    assert idle_option(PAGE_VIEWS, options_with(chosen)) == option


def test_no_job_reads_what_was_aborted_or_may_be_yet() -> None:
    options = source_options("events.page_views", "kappa-page_views", options_with())
    assert "'properties.isolation.level' = 'read_committed'," in options


def test_a_transaction_may_be_open_for_ten_minutes() -> None:
    options = sink_options("kappa-page_views", options_with())
    assert "'properties.transaction.timeout.ms' = '600000'," in options


def options_with(idle_timeout: timedelta | None = None) -> JobOptions:
    """Return options that leave open what has a default."""
    second = timedelta(seconds=1)
    return JobOptions({}, "", {}, second, second, idle_timeout)
