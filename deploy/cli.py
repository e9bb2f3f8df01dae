"""The command line `kappa`: one command a verb, gathered from the rooms that implement them."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import sys

import typer

from deploy.console import CommandError, fail

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

_OTHER_USER = "be the user whose it is, or choose another home with KAPPA_HOME=…"
_FULL = "make room, or choose a home on a larger disk with KAPPA_HOME=…"
_REMEDIES = {
    errno.EACCES: _OTHER_USER,
    errno.EPERM: _OTHER_USER,
    errno.EROFS: "choose a home that can be written with KAPPA_HOME=…",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
}
"""What to do about an error of the system, where that is in the user's hands."""

app = typer.Typer(
    name="kappa",
    help="Kafka in, rebuildable ClickHouse views out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

for _name in _COMMAND_MODULES:
    importlib.import_module(_name).register(app)


def main() -> None:
    """Run one command; a failure the user can act on ends as one sentence and exit code 1."""
    # Native clients (Kafka, Arrow) take the process with them when they crash: say where.
    faulthandler.enable()
    try:
        app()
    except CommandError as error:
        fail(str(error))
        sys.exit(1)
    except ValueError as error:
        # Imported here: most commands that only print help need no settings.
        from pydantic import ValidationError

        from deploy.settings import Settings, refusal

        if not isinstance(error, ValidationError) or error.title != Settings.__name__:
            raise
        fail(refusal(error))
        sys.exit(1)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{(error.strerror or str(error)).lower()}; {remedy}")
        sys.exit(1)
    except KeyboardInterrupt:
        fail("interrupted.")
        sys.exit(130)


if __name__ == "__main__":
    main()
