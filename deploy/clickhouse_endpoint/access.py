"""Who asks, and whether the password is right. No I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deploy.clickhouse_endpoint.errors import authentication_failed


@dataclass(frozen=True)
class User:
    """Somebody who may ask; a reader may change nothing."""

    name: str
    password: str = field(repr=False)
    reader: bool


class Users:
    """Everybody who may ask."""

    def __init__(self, users: Iterable[User]) -> None:
        self._by_name = {user.name: user for user in users}

    def authenticate(self, name: str, password: str) -> User:
        """Return the user of that name.

        Raises QueryError 516 for an unknown name and for a wrong password alike, after the same
        comparison, so that neither the answer nor its time tells which it was.
        """
        user = self._by_name.get(name)
        given, right = _digest(password), _digest(user.password if user else "")
        if not hmac.compare_digest(given, right) or user is None:
            raise authentication_failed(name)
        return user


def _digest(password: str) -> bytes:
    # Equal lengths, so that the comparison's time does not tell the password's length.
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).digest()


def credentials(headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and password of a request.

    Known are, in this order, the X-ClickHouse headers, Basic authentication and the parameters
    `user` and `password`; without any of them the name is `default`. `headers` have lower-case
    names.
    """
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key", "")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "default", ""
        return name, password
    return parameters.get("user", "default"), parameters.get("password", "")
