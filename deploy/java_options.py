"""JVM options that several JVMs share; nothing else is imported, so that peers of the bench may."""

from __future__ import annotations

_OFTEN = 200_000
COMPILED_LATE = (
    f"-XX:Tier4InvocationThreshold={_OFTEN}",
    f"-XX:Tier4MinInvocationThreshold={_OFTEN // 5}",
    f"-XX:Tier4CompileThreshold={_OFTEN * 3}",
    f"-XX:Tier4BackEdgeThreshold={_OFTEN * 8}",
)
"""JVM options by which only what is called very often is compiled for speed.

With those that are the rule, compiling took a quarter of a JVM's time in its first minute.
"""
START_QUICKLY = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""JVM options for what has little to do or lives for seconds, and needs no optimising compiler."""
