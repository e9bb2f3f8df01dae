"""The command line `kappa`: one command a verb, gathered from the rooms that implement them."""

from __future__ import annotations

import faulthandler
import importlib
import sys
import tomllib
from typing import Annotated

import typer

from deploy.console import CommandError, fail
from deploy.failures import of_home, of_settings, stopped_stack

# Each module offers `register(app)`; the order is that of `kappa --help`.
_COMMAND_MODULES = (
    "deploy.commands",
    "schemas.commands",
    "jobs.commands",
    "sinks.commands",
    "replay.commands",
    "replay.archive_commands",
    "replay.dlq_commands",
    "serving.commands",
    "bench.commands",
)

app = typer.Typer(
    name="kappa",
    help="Kafka in, rebuildable ClickHouse views out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from deploy.settings import PROJECT_ROOT

        # In an image the code lies as in a checkout, and is not installed.
        project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
        typer.echo(f"{project['name']} {project['version']}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


for _name in _COMMAND_MODULES:
    importlib.import_module(_name).register(app)


def main() -> None:
    """Run one command; a failure the user can act on ends as one sentence and exit code 1."""
    # Native clients (Kafka, Arrow) take the process with them when they crash: say where.
    faulthandler.enable()
    try:
        app()
    except CommandError as error:
        fail(" ".join(filter(None, (str(error), stopped_stack(error)))))
        sys.exit(1)
    except (ValueError, OSError) as error:
        said = of_home(error) if isinstance(error, OSError) else of_settings(error)
        if not said:
            raise
        fail(said)
        sys.exit(1)
    except KeyboardInterrupt:
        fail("interrupted.")
        sys.exit(130)


if __name__ == "__main__":
    main()
