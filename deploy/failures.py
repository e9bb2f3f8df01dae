"""What the system or the settings refuse, as one sentence where the user can act on it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.console import CommandError

if TYPE_CHECKING:
    from deploy.settings import Settings

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
STOPPED = "The embedded stack is stopped: `kappa up` starts it."
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST)


def stopped_stack(error: CommandError) -> str:
    """Return what to do where `error` comes of the embedded stack's being stopped, else nothing."""
    cause = error.__cause__
    if cause is None:
        return ""
    # Imported here: a command that fails for want of them has imported most already.
    from deploy.settings import Settings
    from jobs.cluster import ClusterUnavailable
    from replay.control import ControlUnavailable
    from schemas.registry import RegistryUnavailable
    from schemas.topics import KafkaUnavailable
    from sinks.clickhouse import ClickHouseFailed

    settings = Settings()
    embedded = {
        ClickHouseFailed: settings.clickhouse_embedded,
        ClusterUnavailable: not settings.flink_url,
        ControlUnavailable: not settings.postgres_dsn.get_secret_value(),
        KafkaUnavailable: not settings.kafka_bootstrap,
        RegistryUnavailable: not settings.registry_url,
    }
    ours = any(here for kind, here in embedded.items() if isinstance(cause, kind))
    answered = isinstance(cause, ClickHouseFailed) and cause.code
    return STOPPED if ours and not answered and not _runs(settings) else ""


def _runs(settings: Settings) -> bool:
    from deploy.stack import Stack

    return Stack(settings).supervisor_pid() is not None


def of_home(error: OSError) -> str:
    """Return what to do about `error`; empty where that is not in the user's hands."""
    number = error.errno or 0
    remedy = _REMEDIES.get(number, "")
    if number in _NO_FOLDER and error.filename and _lacks_home(Path(error.filename)):
        remedy = "choose a home that can be a folder with KAPPA_HOME=…"
    if not remedy:
        return ""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{(error.strerror or str(error)).lower()}; {remedy}"


def of_settings(error: ValueError) -> str:
    """Return what is wrong with the settings; empty where `error` is about something else."""
    # Imported here: most commands that only print help need no settings.
    from pydantic import ValidationError

    from deploy.settings import ENV_FILE, Settings, refusal

    if isinstance(error, ValidationError) and error.title == Settings.__name__:
        return refusal(error)
    if isinstance(error, UnicodeDecodeError) and not _is_text(Path(ENV_FILE)):
        return f"{Path(ENV_FILE).absolute()} is no text in UTF-8; write its settings anew."
    return ""


def _lacks_home(place: Path) -> bool:
    """Whether `place` is in the home, and that is no folder: else something was lost in it."""
    from deploy.settings import Settings

    home = Settings().home.expanduser()
    return not home.is_dir() and any(
        place.is_relative_to(known) for known in (home, home.absolute(), home.resolve())
    )


def _is_text(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    except OSError:
        pass
    return True
