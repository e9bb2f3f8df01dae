"""Several clusters as one, and what Flink says of a failure, told in a line."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from jobs.cluster import Cluster, ClusterUnavailable, root_cause
from tests.endpoint.running import free_port
from tests.flink_rest import flink

JAVA = """\
org.apache.flink.runtime.JobException: Recovery is suppressed
\tat org.apache.flink.Handler.handle(Handler.java:219)
Caused by: java.io.IOException: Could not perform checkpoint 3
\tat org.apache.flink.Task.run(Task.java:17) ~[flink-dist.jar:2.2.1]
Caused by: java.nio.file.FileSystemException: /data: No space left on device
\tat java.base/sun.nio.fs.UnixException.rethrow(UnixException.java:100)
\t... 12 more
"""
PYTHON = """\
org.apache.flink.runtime.taskmanager.AsynchronousException: Caught exception while processing timer.
\tat org.apache.flink.Task.run(Task.java:17)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 36: \
Traceback (most recent call last):
  File "/venv/sdk_worker.py", line 311, in _execute
    response = task()
               ^^^^^^
  File "/venv/udfs/functions.py", line 12, in judge
    raise TooManyDeadLetters("at: 3")
udfs.dead_letter_limit.TooManyDeadLetters: 1000 of 1000 events at: 3

\tat org.apache.beam.FnApi.lambda$handle(FnApi.java:61)
"""


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        (JAVA, "java.nio.file.FileSystemException: /data: No space left on device"),
        (PYTHON, "udfs.dead_letter_limit.TooManyDeadLetters: 1000 of 1000 events at: 3"),
        ("java.lang.Error: alone\n\tat x.Y.z(Y.java:1)\n", "java.lang.Error: alone"),
        ("", ""),
    ],
)
def test_the_innermost_cause_is_told(trace: str, cause: str) -> None:
    assert root_cause(trace) == cause


def test_jobs_of_several_clusters_are_found_where_they_run() -> None:
    with ExitStack() as running:
        first = running.enter_context(flink("a" * 32, "orders.v2", 5, "RUNNING"))
        second = running.enter_context(flink("b" * 32, "orders", 7, "RESTARTING"))
        cluster = Cluster(first, second)
        assert [job.name for job in cluster.jobs()] == ["orders", "orders.v2"]
        assert Cluster(first, second).state("b" * 32) == "RESTARTING"
        assert cluster.live_job("orders.v2") is not None
        assert cluster.configuration() == {"of": "orders.v2"}


def test_a_cluster_that_does_not_answer_is_named_and_hides_no_job() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with flink("a" * 32, "orders", 5, "RUNNING") as first:
        cluster = Cluster(first, nobody)
        with pytest.raises(ClusterUnavailable, match=nobody):
            cluster.live_job("payments")
        with pytest.raises(ClusterUnavailable, match=nobody):
            cluster.jobs()


def test_a_cluster_that_does_not_answer_leaves_the_jobs_of_others_to_be_seen() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with flink("a" * 32, "orders", 5, "RUNNING") as first:
        found = Cluster(nobody, first).live_job("orders")
        assert found is not None
        assert Cluster(nobody, first).state("a" * 32) == "RUNNING"
        jobs, silent = Cluster(nobody, first).look()
        assert jobs == [found]
        (error,) = silent
        assert nobody in str(error)


def test_clusters_that_accept_and_never_answer_are_waited_for_at_once() -> None:
    with ExitStack() as listening, flink("a" * 32, "orders", 5, "RUNNING") as first:
        hanging = []
        for _ in range(4):
            listener = listening.enter_context(socket.create_server(("127.0.0.1", 0)))
            hanging.append(f"http://127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        jobs, silent = Cluster(*hanging, first, timeout=1).look()
        assert time.monotonic() - began < 3
    assert [job.name for job in jobs] == ["orders"]
    assert all(nobody in str(error) for nobody, error in zip(hanging, silent, strict=True))


def test_a_vertex_has_the_watermark_that_all_its_subtasks_have_got() -> None:
    told = [
        ("Source: orders", []),
        ("Join -> a_topic: Writer", [70, 60]),
        ("Join -> b_topic: Writer", [80, -(2**63)]),
        ("c_topic: Committer", [-(2**63)]),
        ("Join -> a_topic: Writer", [90]),
    ]
    with flink("a" * 32, "orders", 5, "RUNNING", watermarks=told) as address:
        found = Cluster(address).watermarks("a" * 32)
    assert found == {"Join -> a_topic: Writer": 60}


@pytest.mark.parametrize(
    ("newest_first", "failed", "failure"),
    [
        (("COMPLETED", "FAILED", "FAILED"), 2, ""),
        (("FAILED", "FAILED", "COMPLETED"), 2, "3 is too big."),
        (("IN_PROGRESS", "FAILED", "COMPLETED"), 1, "2 is too big."),
        (("IN_PROGRESS",), 0, ""),
        ((), 0, ""),
    ],
)
def test_a_newest_checkpoint_that_failed_is_told_of(
    newest_first: tuple[str, ...], failed: int, failure: str
) -> None:
    with flink("a" * 32, "orders", 5, "RUNNING", checkpoints=newest_first) as address:
        found = Cluster(address).checkpoints("a" * 32)
    assert (found.failed, found.failure) == (failed, failure)
    assert found.under_way is ("IN_PROGRESS" in newest_first)


def test_a_cluster_that_gets_slots_when_asked_has_no_number_of_them() -> None:
    own = {"kubernetes.cluster-id": "rebuilds"}
    with flink("a" * 32, "orders", 5, "RUNNING", configuration=own) as native:
        assert Cluster(native).slots_free() is None
    with flink("a" * 32, "orders", 5, "RUNNING", slots=3) as session:
        assert Cluster(session).slots_free() == 3
