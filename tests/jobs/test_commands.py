"""The commands over jobs, without a cluster."""

from __future__ import annotations

import json

import pytest

from deploy.console import CommandError
from jobs.commands import submit
from jobs.submit import SubmissionFailed, Submitted


def test_jobs_that_started_before_one_failed_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(_: object, job: str, **__: object) -> Submitted:
        if job == "words":
            raise SubmissionFailed("words does not start.")
        return Submitted(job_id="a" * 32, name=job, restored_from=None, code="")

    monkeypatch.setattr("jobs.submit.submit", start)
    with pytest.raises(CommandError, match="words does not start"):
        submit(["orders", "words", "posts"], version=1, restore="latest", as_json=True)
    (started,) = json.loads(capsys.readouterr().out)
    assert (started["name"], started["job_id"]) == ("orders", "a" * 32)
