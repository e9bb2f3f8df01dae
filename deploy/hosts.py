"""Under which names a server is reached, and by whose pages. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

_LOOPBACK = ("localhost",)


class Names:
    """The host names under which the server is reached.

    A page of another site must not reach it by letting its own name point here (DNS rebinding).
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {name.strip().lower() for name in names if name.strip()}
        self._any = "*" in self._names

    def known(self, host: str) -> bool:
        """Whether a request's Host header names this server; the port does not count."""
        name = _parsed(f"//{host}").hostname or ""
        return self._any or name in self._names or name in _LOOPBACK or _is_loopback(name)

    def same_origin(self, origin: str | None, host: str) -> bool:
        """Whether a page of `origin` may ask `host`; programs send none and may."""
        return origin is None or _parsed(origin).netloc == host.lower()


def _parsed(address: str) -> SplitResult:
    """Return the parts of `address` in lower case, all empty where it is none."""
    try:
        return urlsplit(address.lower())
    except ValueError:
        return SplitResult("", "", "", "", "")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
