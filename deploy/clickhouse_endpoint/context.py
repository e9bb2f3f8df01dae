"""What a request asks of its connection: database and settings. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.clickhouse_endpoint import guard
from deploy.clickhouse_endpoint.access import User
from deploy.clickhouse_endpoint.errors import QueryError, readonly
from deploy.clickhouse_endpoint.limits import Limits

# Parameters of the transport itself; every other one is a setting for the engine.
_TRANSPORT = frozenset(
    """
    query user password quota_key database default_format session_id session_timeout session_check
    query_id wait_end_of_query buffer_size compress decompress client_protocol_version role
    send_progress_in_http_headers http_headers_progress_interval_ms enable_http_compression
    http_zlib_compression_level cancel_http_readonly_queries_on_client_close readonly stacktrace
    add_http_cors_header http_write_exception_in_output_format log_comment
    """.split()  # noqa: SIM905
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AMOUNT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True)
class Context:
    """What a connection is set to before a statement runs; no database stands for the default one.

    `readonly` is ClickHouse's setting of that name and is set last, so that the engine itself
    refuses whatever a statement tries to change afterwards.
    """

    database: str
    settings: tuple[tuple[str, str], ...] = ()
    readonly: int = 0


def base_settings(limits: Limits, *, reads: bool) -> dict[str, str]:
    """Return the settings that a statement starts from.

    Only those that read have a time limit: a mutation or an INSERT cut short helps nobody.
    """
    return {
        "max_execution_time": str(limits.max_execution_seconds if reads else 0),
        "max_memory_usage": str(limits.max_query_memory_bytes),
        "implicit_select": "0",
        "allow_introspection_functions": "0",
    }


def request_context(
    parameters: Mapping[str, str], user: User, database: str, limits: Limits, *, reads: bool
) -> Context:
    """Return the context that `user` asks for by the URL's parameters.

    `reads` says that the statement only reads. Raises QueryError for a setting that the user may
    not change.
    """
    settings = base_settings(limits, reads=reads or user.reader)
    for name, value in parameters.items():
        if name in _TRANSPORT or name.startswith("param_"):
            continue
        if not _NAME.fullmatch(name):
            raise QueryError(115, "UNKNOWN_SETTING", f"Unknown setting '{name}'")
        refused = guard.setting_refusal(name) if user.reader else None
        if refused is not None:
            raise refused
        bound = settings.get(name) if user.reader else None
        settings[name] = value if bound is None else _lowered(value, bound)
    asked = parameters.get("readonly", "1" if user.reader else "0")
    if asked not in (("1", "2") if user.reader else ("0", "1", "2")):
        raise readonly(f"readonly can't be '{asked}' here.")
    return Context(database, tuple(sorted(settings.items())), 1 if user.reader else int(asked))


def _lowered(value: str, bound: str) -> str:
    """Return a reader's `value`, or the `bound` that it may not exceed.

    The engine takes 0 for no bound, and what rounds to 0 as well.
    """
    if not _AMOUNT.fullmatch(value):
        return bound
    return value if 0.001 <= float(value) < float(bound) else bound


def buffered(context: Context, user: User, limits: Limits) -> Context:
    """Return `context` with a bound on an answer that is held in memory as a whole."""
    settings = dict(context.settings)
    bound = str(limits.max_result_bytes)
    given = settings.get("max_result_bytes", bound)
    settings["max_result_bytes"] = _lowered(given, bound) if user.reader else given
    return Context(context.database, tuple(sorted(settings.items())), context.readonly)
