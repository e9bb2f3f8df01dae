"""The entry point that `flink run -py jobs/<job>.py` executes: build one job and hand it over."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import timedelta
from typing import Any

from deploy.java_kafka import SHADED, java_kafka
from deploy.settings import Settings
from jobs.plan import JobPlan, plan
from jobs.start import accepted_from, start_from
from jobs.views import Job
from schemas.registry import Registry, publish_schema
from schemas.topics import ensure_events_topic, ensure_raw_topic, ensure_view_topic

DELIVERIES = ("exactly-once", "at-least-once")


def main(job: Job) -> None:
    """Submit `job` as the command line and the environment ask for it."""
    arguments = _parser(job).parse_args()
    settings = Settings()
    job_plan = plan(
        job.within(settings.namespace),
        arguments.version,
        tuple(filter(None, arguments.views.split(","))),
    )
    job_plan = replace(job_plan, copy=arguments.copy)
    if arguments.explain:
        nothing = {view.subject(arguments.version): 0 for view in job_plan.views}
        environment, statements = _statements(settings, job_plan, nothing, arguments)
        statements.attach_as_datastream()
        print(environment.get_execution_plan())
        return
    schema_ids = prepare(settings, job_plan)
    _, statements = _statements(settings, job_plan, schema_ids, arguments)
    statements.execute()


def prepare(settings: Settings, job_plan: JobPlan) -> dict[str, int]:
    """Create the job's topics and register its schemas; return schema id by subject."""
    registry = Registry(**settings.registry_access, retry_for=30.0)
    kafka, version = settings.kafka_client, job_plan.version
    partitions = {}
    for stream in job_plan.job.streams:
        publish_schema(registry, stream)
        partitions[stream] = ensure_events_topic(kafka, stream)
        for topic in (stream.dead_letter_topic(version), stream.late_topic(version)):
            ensure_raw_topic(kafka, topic, partitions[stream])
    schema_ids = {}
    for view in job_plan.views:
        ensure_view_topic(kafka, view.topic(version), partitions[view.streams[0]])
        subject = view.subject(version)
        schema_ids[subject] = registry.register(subject, view.avro_schema)
    return schema_ids


def _statements(
    settings: Settings,
    job_plan: JobPlan,
    schema_ids: dict[str, int],
    arguments: argparse.Namespace,
) -> tuple[Any, Any]:
    """Return the Flink environment and the job's statement set in it."""
    from pyflink.datastream import StreamExecutionEnvironment

    from jobs.options import JobOptions, registry_options
    from jobs.pipeline import build, configuration, state_locations

    idle = arguments.idle_timeout_seconds
    options = JobOptions(
        kafka=java_kafka(settings, SHADED),
        registry_url=settings.registry,
        registry_options=registry_options(settings),
        schema_ids=schema_ids,
        early_fire=timedelta(seconds=arguments.early_fire_seconds),
        checkpoint_interval=timedelta(seconds=arguments.checkpoint_seconds),
        checkpoint_timeout=timedelta(seconds=arguments.checkpoint_timeout_seconds),
        transaction_timeout=timedelta(seconds=arguments.transaction_timeout_seconds),
        idle_timeout=None if idle is None else timedelta(seconds=idle),
        bundle_time=timedelta(milliseconds=arguments.bundle_ms),
        batch_events=arguments.batch_events,
        exactly_once=arguments.delivery == DELIVERIES[0],
        start=start_from(arguments.start, arguments.newest),
        accepted=accepted_from(arguments.accept_dead_letters),
    )
    flink = configuration(job_plan, options)
    if not options.exactly_once:
        flink.set_string("execution.checkpointing.mode", "AT_LEAST_ONCE")
    for key, location in state_locations(job_plan.name).items():
        flink.set_string(key, location)
    environment = StreamExecutionEnvironment.get_execution_environment(flink)
    environment.set_parallelism(arguments.parallelism)
    return environment, build(environment, job_plan, options)


def _parser(job: Job) -> argparse.ArgumentParser:
    settings = Settings()
    parser = argparse.ArgumentParser(prog=f"{job.name}.py", description=f"Run job {job.name}.")
    add = parser.add_argument
    add("--version", type=int, default=1, help="version of the views to write")
    add("--views", default="", help="only these views, separated by commas")
    add("--copy", default="", help="read this copy of the events topic, which has its offsets")
    add("--start", default="", help="begin with these offsets: partition:offset,…")
    add("--newest", default="", help="newest timestamps before --start: partition:epoch ms,…")
    add(
        "--accept-dead-letters",
        default="",
        help="however many there are before these offsets: stream:partition:offset,…",
    )
    add("--parallelism", type=int, default=settings.parallelism)
    add("--early-fire-seconds", type=float, default=settings.early_fire_seconds)
    add("--checkpoint-seconds", type=float, default=settings.checkpoint_seconds)
    add("--checkpoint-timeout-seconds", type=float, default=600, help="until one has failed")
    add(
        "--transaction-timeout-seconds",
        type=float,
        default=600,
        help="longest outage between a checkpoint and its commit that loses nothing",
    )
    add("--idle-timeout-seconds", type=float, help="until a partition is idle; else its stream's")
    add("--bundle-ms", type=int, default=200, help="longest wait for a batch to fill")
    add("--batch-events", type=int, default=100_000, help="most events in a batch")
    add("--delivery", choices=DELIVERIES, default=DELIVERIES[0], help="of rows after a failure")
    add("--explain", action="store_true", help="print Flink's operators as JSON, run nothing")
    return parser
