"""What stands before every request: host names, origins, sizes, and the headers of answers."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_TARGET_BYTES = 16_384
# Probes and scrapers come by address, and learn nothing there that a name would protect.
_ANY_NAME = ("/healthz", "/readyz", "/metrics")
_LOOPBACK = ("localhost",)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
# Swagger UI draws its icons from data: addresses and sets markup by itself; it shows no data of
# ours but the API's own description.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


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
        """Whether a page of `origin` may open a socket; programs send none and may."""
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


class Guard:
    """ASGI middleware that refuses what no route wants, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        path = scope["path"]
        add = _answer_headers(path)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                added = [(n, v) for n, v in add if n not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refused = self._refusal(path, scope, headers)
        if refused is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _refuse(send_with_headers, *refused)

    def _refusal(
        self, path: str, scope: Scope, headers: Mapping[str, str]
    ) -> tuple[int, str] | None:
        if path not in _ANY_NAME and not self._names.known(headers.get("host", "")):
            return 421, "This server has another name; add it to KAPPA_SERVING_NAMES."
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            return 413, "A request has no body here; everything is asked with GET."
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
            return 414, f"The address of a request may have {MAX_TARGET_BYTES:,} bytes."
        return None


def _answer_headers(path: str) -> list[tuple[bytes, bytes]]:
    policy = DOCS_POLICY if path == "/docs" else POLICY
    cache = {} if path.startswith("/static/vendor/") else {"cache-control": "no-cache"}
    headers = {**_HEADERS, "content-security-policy": policy, **cache}
    return [(name.encode(), text.encode()) for name, text in headers.items()]


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
