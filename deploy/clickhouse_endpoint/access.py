"""Who asks, and whether the password is right. No I/O."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.clickhouse_endpoint.errors import AUTHENTICATION_FAILED, QueryError


@dataclass(frozen=True)
class User:
    """Somebody who may ask; a reader may change nothing."""

    name: str
    password: str
    reader: bool

    def __repr__(self) -> str:
        return f"User({self.name!r}, reader={self.reader})"


@dataclass(frozen=True)
class Users:
    """Everybody who may ask, by name."""

    by_name: Mapping[str, User]

    def authenticate(self, name: str, password: str) -> User:
        """Return the user of that name.

        Raises QueryError (516) for an unknown name and a wrong password alike, after the same
        comparison, so that neither the answer nor its time tells which it was.
        """
        user = self.by_name.get(name)
        expected = user.password if user else "\0"
        right = hmac.compare_digest(password.encode(), expected.encode())
        if user is None or not right:
            raise QueryError(
                AUTHENTICATION_FAILED,
                "AUTHENTICATION_FAILED",
                f"{name}: Authentication failed: password is incorrect, or there is no user "
                "with such name.",
            )
        return user


def credentials(headers: Mapping[str, str], parameters: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and password of a request, in the order in which ClickHouse looks.

    `headers` have lower-case names. Basic authentication, the X-ClickHouse headers and the
    parameters `user` and `password` are known; without any of them the name is `default`.
    """
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "default"), headers.get("x-clickhouse-key", "")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "default", ""
        return name, password
    return parameters.get("user", "default"), parameters.get("password", "")
