"""`kappa serve`: the API and the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from deploy.console import OUT, CommandError, print_json


def register(app: typer.Typer) -> None:
    """Add the commands of this room to `app`."""
    app.command()(serve)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for the usual one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Serve the API and the dashboard until told to stop.

    The embedded stack runs one by itself, on port base + 300.

    Example: kappa serve --port 9000
    """
    from deploy.processes import port_owner, port_taken
    from deploy.settings import Settings
    from serving.server import run

    given = {"serving_host": host, "serving_port": port}
    settings = Settings().model_copy(update={k: v for k, v in given.items() if v})
    taken = settings.serving_http_port
    if port_taken(taken, settings.serving_host):
        raise CommandError(
            f"Port {taken} is held by {port_owner(taken)}; give another one with --port."
        )
    address = settings.serving
    if as_json:
        print_json({"dashboard": address, "api": f"{address}/api/views", "docs": f"{address}/docs"})
    else:
        OUT.print(f"Dashboard at {address}, API at {address}/docs", highlight=False)
    run(settings)
