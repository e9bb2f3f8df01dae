"""All settings as a table: in effect here, and with their defaults as a page. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import SecretStr

from deploy.settings import PROJECT_ROOT, Settings, variable

_HIDDEN = "***"
_HEAD = """# Settings

Each can be given in the environment or in a file `.env` in the folder that a command is run in.
One that is secret, or any other, can also be a file of its own in the folder that
`KAPPA_SECRETS_DIR` names, called like its variable in lower case. `kappa settings` shows what holds
where it is run; an address or port that is left empty is that of the embedded stack.

| Variable | Default | What it is |
|---|---|---|
"""


def in_effect(settings: Settings) -> list[dict[str, Any]]:
    """Return each setting's `variable`, its `value` as text, and `description`; secrets hidden."""
    derived = {
        "kafka_bootstrap": settings.kafka,
        "registry_url": _without_user(settings.registry),
        "flink_url": ",".join(map(_without_user, settings.flink_clusters)),
        "clickhouse_port": settings.clickhouse_http_port,
        "serving_port": settings.serving_http_port,
        "archive_url": _without_user(settings.archive),
    }
    return [
        {
            "variable": variable(name),
            "value": _shown(derived.get(name, getattr(settings, name))),
            "description": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]


def page() -> str:
    """Return the page of docs/ with all settings and their defaults."""
    return _HEAD + "".join(_rows())


def _rows() -> Iterable[str]:
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            # No secret as it is: whoever reads this is to see what must be changed.
            default = default.get_secret_value()
        default = _shown(default).removeprefix(f"{PROJECT_ROOT}/")
        said = field.description or ""
        yield f"| `{variable(name)}` | {f'`{default}`' if default else ''} | {said} |\n"


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    # A port of nought is the embedded one.
    return "" if type(value) is int and value == 0 else str(value)


def _without_user(url: str) -> str:
    """Return `url` without the name and password that may stand in it."""
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
