"""What Flink says of a failure, told in a line."""

from __future__ import annotations

import pytest

from jobs.cluster import root_cause

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
