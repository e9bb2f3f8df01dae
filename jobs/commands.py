"""`kappa submit`, `cancel`, `savepoint`, `flink`, `views`: the jobs on the configured cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy import completion
from deploy.console import ERR, OUT, CommandError, print_json, print_table

if TYPE_CHECKING:
    from deploy.settings import Settings

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_Version = Annotated[
    int | None,
    typer.Option(min=1, help="Version of the views it writes; the one people see by default."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    app.command()(submit)
    app.command()(cancel)
    app.command()(savepoint)
    app.command()(upgrade)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        add_help_option=False,
    )(flink)
    app.command()(views)
    app.command("new-view")(new_view)


def submit(
    jobs: Annotated[
        list[str],
        typer.Argument(help="Jobs as `kappa views` names them.", autocompletion=completion.jobs),
    ],
    version: _Version = None,
    restore: Annotated[
        str,
        typer.Option(
            "--from",
            help='"latest" savepoint or checkpoint, "none" for offset zero, or a location.',
        ),
    ] = "latest",
    views: Annotated[
        list[str] | None,
        typer.Option(
            "--view", help="Only this view; may be repeated.", autocompletion=completion.views
        ),
    ] = None,
    parallelism: Annotated[int | None, typer.Option(min=1, help="Subtasks per operator.")] = None,
    accept_dead_letters: Annotated[
        bool,
        typer.Option(
            "--accept-dead-letters",
            help="Pass by those in the topics now, though they are more than a stream allows.",
        ),
    ] = False,
    accept_lost_rows: Annotated[
        bool,
        typer.Option(
            "--accept-lost-rows",
            help="Go on though Kafka aborted what a checkpoint counted on, until a rebuild.",
        ),
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Submit jobs and wait until they run; each continues where it stopped.

    A job whose state does not fit the code any more refuses to start. One that stopped at too many
    dead letters goes on once they are accepted: `kappa cancel` it, then submit it so.

    Example: kappa submit page_views
    """
    from deploy.settings import Settings
    from jobs.start import accepted_option
    from jobs.submit import submit as submit_job

    settings = Settings()
    options: dict[str, str | float] = {} if parallelism is None else {"parallelism": parallelism}
    started = []
    try:
        with plain_errors():
            for job in jobs:
                if accept_dead_letters:
                    options |= accepted_option(_ends(settings, job))
                with ERR.status(f"Submitting {job} …"):
                    number = version or _usual_version(settings, job)
                    done = submit_job(
                        settings,
                        job,
                        version=number,
                        views=_of_job(job, views or ()),
                        restore=restore,
                        options=options,
                        lost_rows_accepted=accept_lost_rows,
                    )
                started.append(asdict(done))
                if not as_json:
                    origin = done.restored_from or "offset zero"
                    said = f"{done.name} runs as {done.job_id}, from {origin}."
                    OUT.print(said, highlight=False, soft_wrap=True)
    finally:
        # Where a job fails, those before it run all the same.
        if as_json:
            print_json(started)


def _ends(settings: Settings, job: str) -> dict[str, dict[int, int]]:
    from jobs.catalogue import job_named
    from schemas.topics import end_offsets, topic_names

    kafka, streams = settings.kafka_client, job_named(job).within(settings.namespace).streams
    there = topic_names(kafka)
    return {s.name: end_offsets(kafka, s.topic) for s in streams if s.topic in there}


def _of_job(job: str, views: Sequence[str]) -> tuple[str, ...]:
    from jobs.catalogue import job_named

    known = [view.name for view in job_named(job).views]
    if strangers := [view for view in views if view not in known]:
        raise CommandError(f"job {job} has no view {strangers[0]}; it has {', '.join(known)}.")
    return tuple(views)


def cancel(
    job: Annotated[str, typer.Argument(help="A job.", autocompletion=completion.jobs)],
    version: _Version = None,
    as_json: _AsJson = False,
) -> None:
    """Stop a job at once; its checkpoints stay. Example: kappa cancel page_views"""
    from deploy.settings import Settings
    from jobs.submit import cancel as cancel_job
    from jobs.submit import flink_name

    settings = Settings()
    with plain_errors():
        number = version or _usual_version(settings, job)
        ended = cancel_job(settings, flink_name(settings, job, number))
    if as_json:
        print_json({"job_id": ended.id, "name": ended.name})
    else:
        OUT.print(f"{ended.name} is cancelled; its checkpoints stay.", highlight=False)


def savepoint(
    job: Annotated[str, typer.Argument(help="A job.", autocompletion=completion.jobs)],
    version: _Version = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the job after it.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Write a savepoint of a job. Example: kappa savepoint page_views --stop"""
    from deploy.settings import Settings
    from jobs.submit import flink_name, take_savepoint

    settings = Settings()
    with plain_errors(), ERR.status(f"Writing a savepoint of {job} …"):
        number = version or _usual_version(settings, job)
        taken, location = take_savepoint(settings, flink_name(settings, job, number), stop=stop)
    if as_json:
        print_json({"job_id": taken.id, "location": location, "stopped": stop})
    else:
        said = f"{location}{' (the job is stopped)' if stop else ''}"
        OUT.print(said, highlight=False, soft_wrap=True)


def upgrade(
    job: Annotated[str, typer.Argument(help="A job that runs.", autocompletion=completion.jobs)],
    version: _Version = None,
    parallelism: Annotated[int | None, typer.Option(min=1, help="Subtasks per operator.")] = None,
    as_json: _AsJson = False,
) -> None:
    """Put new code in the place of a running job: savepoint, stop, start from it.

    A job whose state does not fit the new code goes on as it is.

    Example: kappa upgrade page_views --parallelism 4
    """
    from deploy.settings import Settings
    from jobs.upgrade import upgrade as upgrade_job

    settings = Settings()
    with plain_errors(), ERR.status(f"Upgrading {job} …"):
        number = version or _usual_version(settings, job)
        done = upgrade_job(settings, job, version=number, parallelism=parallelism)
    if as_json:
        print_json(asdict(done))
        return
    said = f"{done.started.name} runs as {done.started.job_id}, from {done.savepoint}."
    OUT.print(said, highlight=False, soft_wrap=True)


def flink(context: typer.Context) -> None:
    """Run Flink's own client, with the stack's configuration and jars.

    A job that it starts is not resumed by `kappa up`; one that `kappa submit` starts is.

    Example: kappa flink run -d -py jobs/page_views.py
    """
    import os

    from deploy.flink import client, client_environment
    from deploy.settings import Settings

    settings = Settings()
    command = [*client(settings), *context.args]
    environment = os.environ | client_environment(settings) | settings.environment()
    os.execve(command[0], command, environment)


def _usual_version(settings: Settings, job: str) -> int:
    from jobs.catalogue import job_named
    from jobs.versions import usual_version

    return usual_version(settings, job_named(job))


def views(
    name: Annotated[
        str | None,
        typer.Argument(help="A view, or a job for all of its.", autocompletion=completion.views),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the whole catalogue as a page.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Say what each declared view answers, and of one, or of a job's, the key and the columns.

    Example: kappa views page_views_per_minute
    """
    from jobs.catalogue import JOBS, VIEWS, job_of, view_named
    from jobs.catalogue_page import nature, page
    from jobs.views import QueryView

    if markdown:
        sys.stdout.write(page(JOBS.values()))
        return
    with plain_errors():
        if name in JOBS and name not in VIEWS:
            chosen = list(JOBS[name].views)
        else:
            chosen = [view_named(name)] if name else list(VIEWS.values())
    described: list[dict[str, Any]] = [
        {
            "name": view.name,
            "job": job_of(view).name,
            "streams": [stream.name for stream in view.streams],
            "description": view.description,
            "nature": nature(view),
            "sql": dedent(view.sql).strip() if isinstance(view, QueryView) else None,
            "key": list(view.key),
            "columns": [
                {"name": c.name, "type": c.type.value, "nullable": c.nullable, "doc": c.doc}
                for c in view.columns
            ],
        }
        for view in chosen
    ]
    if as_json:
        print_json(described)
        return
    if not name:
        answers = [(view["job"], view["name"], view["description"]) for view in described]
        print_table("Views", ("job", "view", "answers"), answers)
        OUT.print("kappa views NAME tells of a view or a job its columns, and when rows come.")
        return
    for view in described:
        OUT.print(f"[bold]{view['name']}[/]  (job {view['job']})", highlight=False)
        OUT.print(view["description"], markup=False, highlight=False)
        OUT.print(view["nature"], markup=False, highlight=False)
        rows = [
            (c["name"], c["type"], "key" if c["name"] in view["key"] else "", c["doc"])
            for c in view["columns"]
        ]
        print_table("", ("column", "type", "", "meaning"), rows)


def new_view(
    name: Annotated[str, typer.Argument(help="Its name, such as page_views_per_country.")],
    job: Annotated[str, typer.Option(help="The job that is to write it.")] = "page_views",
    by: Annotated[
        str, typer.Option(help="Text field of the stream to count by; its key by default.")
    ] = "",
    as_json: _AsJson = False,
) -> None:
    """Write a view that works, with its test: a count by one field, to go on from.

    Example: kappa new-view page_views_per_country --by country
    """
    from deploy.settings import PROJECT_ROOT
    from jobs.new_view import CannotWrite
    from jobs.new_view import new_view as write_view

    with plain_errors():
        try:
            text = (PROJECT_ROOT / "jobs" / f"{job}.py").read_text()
        except OSError:
            text = ""
        try:
            written = write_view(name, job, by, text)
            written.write(PROJECT_ROOT)
        except CannotWrite as error:
            raise CommandError(str(error)) from error
    if as_json:
        print_json({"module": written.module, "test": written.test})
        return
    OUT.print(f"{name} is declared in {written.module}, tested in {written.test}.", highlight=False)
    OUT.print(f"Try it: pytest {written.test}", highlight=False)
    started = f"kappa submit {job} --view {name} --version N"
    OUT.print(f"Start it: {started}, N being a version not used yet", highlight=False)
    OUT.print("Describe it: kappa views --markdown > docs/VIEWS.md", highlight=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Have what went wrong with a job end a command as one sentence."""
    from jobs.catalogue import UnknownJob, UnknownView
    from jobs.cluster import ClusterError, ClusterUnavailable
    from jobs.state import StateUnavailable
    from jobs.submit import SubmissionFailed
    from schemas.topics import KafkaUnavailable

    try:
        yield
    except (
        KafkaUnavailable,
        UnknownJob,
        UnknownView,
        ClusterError,
        ClusterUnavailable,
        StateUnavailable,
        SubmissionFailed,
    ) as error:
        raise CommandError(str(error)) from error
