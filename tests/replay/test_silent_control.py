"""A control plane that is gone without a word. No stack."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from replay.control import Control, ControlUnavailable


def test_a_connection_that_goes_silent_is_given_up_after_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {}

    def connect(dsn: str, **given: Any) -> None:
        own = {"row_factory", "autocommit"}
        # The client library refuses what it does not know.
        text = make_conninfo(dsn, **{k: v for k, v in given.items() if k not in own})
        options.update(conninfo_to_dict(text))
        raise psycopg.OperationalError("nobody there")

    monkeypatch.setattr(psycopg, "connect", connect)
    away = pytest.raises(ControlUnavailable, match="does not answer \\(nobody there\\)")
    with Control("postgresql://postgres@db/postgres", "") as control, away:
        control.leases()
    idle, interval, count = (
        int(options[f"keepalives_{name}"]) for name in ("idle", "interval", "count")
    )
    assert idle + interval * count == 30
    assert options["tcp_user_timeout"] == "30000"
