"""What is said of an address of the control plane that can't be read. No stack."""

from __future__ import annotations

import pytest

from deploy.settings import Settings
from replay.control import Control, ControlUnavailable

_BEFORE, _AFTER = "horse", "battery"
_ESCAPED = "any of @/:#?% in a password is written as %40 and so on"


@pytest.mark.parametrize("password", ["", "another"])
@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://kappa:{_BEFORE}@{_AFTER}@127.0.0.1:1/kappa",
        f"postgresql://kappa:{_BEFORE}@..{_AFTER}@127.0.0.1:1/kappa",
        f"postgresql://kappa:{_BEFORE}@[{_AFTER}@127.0.0.1:1/kappa",
        f"postgresql://kappa:{_BEFORE}/{_AFTER}@127.0.0.1:1/kappa",
        f"postgresql://kappa:{_BEFORE}%zz{_AFTER}@127.0.0.1:1/kappa",
        f"host=127.0.0.1 port=1 password={_BEFORE} {_AFTER}",
        f"host=127.0.0.1 port=1 password='{_BEFORE} {_AFTER}",
    ],
)
def test_no_part_of_a_password_is_told(dsn: str, password: str) -> None:
    settings = Settings(_env_file=None, postgres_dsn=dsn, postgres_password=password)
    with (
        Control(settings.postgres, "") as control,
        pytest.raises(ControlUnavailable, match=_ESCAPED.replace("?", r"\?")) as told,
    ):
        control.leases()
    text = f"{told.value!r} {told.value.__cause__!r}"
    assert _BEFORE not in text
    assert _AFTER not in text
    assert told.value.__suppress_context__


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    with (
        Control("postgresql://kappa:horse%40battery@127.0.0.1:1/kappa", "") as control,
        pytest.raises(ControlUnavailable, match="port 1 failed: Connection refused"),
    ):
        control.leases()
