"""What stands before every request: host names, origins, sizes, and the headers of answers."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.hosts import Names

MAX_TARGET_BYTES = 16_384
# Probes and scrapers come by address, and learn nothing there that a name would protect.
_ANY_NAME = ("/healthz", "/readyz", "/metrics")

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
