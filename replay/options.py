"""Options that several commands of `kappa replay` share: each declared once, as a field."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from deploy import completion

if TYPE_CHECKING:
    from replay.differences import Expectation
    from replay.pace import Limits

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OfJob = Annotated[str, typer.Option(help="The job whose replay is meant, if several are open.")]
Force = Annotated[
    str,
    typer.Option(
        help="Promote in spite of unexplained differences, or of no comparison, for this reason."
    ),
]


@dataclass(frozen=True)
class Wish:
    """What is to be rebuilt, from where, and what the fix changes."""

    views: Annotated[
        list[str] | None,
        typer.Argument(
            help="Views of one job; without any, all that are live.",
            autocompletion=completion.views,
        ),
    ] = None
    job: Annotated[
        str,
        typer.Option(
            help="Without views: the job all of whose live views are meant.",
            autocompletion=completion.jobs,
        ),
    ] = ""
    expect: Annotated[
        list[str] | None,
        typer.Option(
            help="What the fix changes, as SQL over old.column and new.column; may be repeated."
        ),
    ] = None
    expect_column: Annotated[
        list[str] | None, typer.Option(help="A column that the fix changes; may be repeated.")
    ] = None
    from_earliest: Annotated[
        bool, typer.Option("--from-earliest", help="Accept that the topic's first events are gone.")
    ] = False
    from_archive: Annotated[
        bool,
        typer.Option(
            "--from-archive", help="Take the events that the topic lacks from the archive."
        ),
    ] = False

    count_twice: Annotated[
        bool,
        typer.Option(
            "--count-twice",
            help="Accept that mended dead letters count twice, as the rules now take them too.",
        ),
    ] = False

    @property
    def expected(self) -> Expectation:
        """The differences that people declared."""
        from replay.differences import Expectation

        return Expectation(tuple(self.expect_column or ()), tuple(self.expect or ()))


@dataclass(frozen=True)
class Pace:
    """How fast a rebuild may be; see `replay.pace.Limits`."""

    max_rate: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Read so many events a second at most, of those that are there when it begins.",
        ),
    ] = None
    max_live_lag: Annotated[
        int, typer.Option(min=1, help="Slow down while the live job is behind by more events.")
    ] = 100_000
    max_checkpoint: Annotated[
        float,
        typer.Option(
            min=1, help="Slow down while its checkpoints take longer than so many seconds."
        ),
    ] = 30.0

    @property
    def limits(self) -> Limits:
        """What the rebuild must keep to."""
        from replay.pace import Limits

        return Limits(self.max_rate, self.max_live_lag, self.max_checkpoint)


@dataclass(frozen=True)
class Manner:
    """How a command goes about it: whether it asks, waits, and prints for programs."""

    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
    wait: Annotated[
        float, typer.Option(min=0, help="Wait so many seconds for a control plane that is down.")
    ] = 0
    as_json: AsJson = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` an option for each field of its parameters that are such classes.

    Typer knows options as parameters only, so the signature it sees has the fields instead.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, given in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _of_fields(groups[name])
        else:
            parameters.append(_parameter(name, given.default, hints[name]))

    def run(**chosen: Any) -> None:
        for name, group in groups.items():
            own = {field.name: chosen.pop(field.name) for field in fields(group)}
            chosen[name] = group(**own)
        command(**chosen)

    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _of_fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_parameter(field.name, field.default, hints[field.name]) for field in fields(group)]


def _parameter(name: str, default: Any, hint: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=hint)
