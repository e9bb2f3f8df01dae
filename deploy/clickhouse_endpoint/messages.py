"""Requests and answers as the application sees them, and their WSGI form."""

from __future__ import annotations

import email.message
import email.parser
import email.policy
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from deploy.clickhouse_endpoint.errors import syntax
from deploy.clickhouse_endpoint.streams import Received

TEXT = "text/plain; charset=UTF-8"
_QUERY_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Wire(Protocol):
    """The client's connection, for what WSGI has no word for."""

    def close_after(self) -> None:
        """Close the connection when the answer is sent."""

    def break_off(self) -> None:
        """End an answer in chunks without its last one, so that the client sees it broken."""

    def gone(self) -> bool:
        """Return whether the client has closed the connection."""


@dataclass(frozen=True)
class Request:
    """A request: `parameters` are the URL's, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    parameters: Mapping[str, str]
    body: Received
    wire: Wire

    @cached_property
    def query_id(self) -> str:
        """The client's own id for the query where a header can carry it, or a new one."""
        given = self.parameters.get("query_id", "")
        return given if _QUERY_ID.fullmatch(given) else str(uuid.uuid4())

    def bound(self) -> dict[str, str]:
        """Return the values of the statement's placeholders by name."""
        return {
            name.removeprefix("param_"): value
            for name, value in self.parameters.items()
            if name.startswith("param_")
        }


@dataclass
class Response:
    """An answer: status, headers, and the body in pieces, which may have a `close()`."""

    status: int
    headers: dict[str, str]
    body: Iterable[bytes] = field(default=())


def plain(status: int, text: str) -> Response:
    """Return an answer in plain text."""
    body = text.encode()
    return Response(status, {"Content-Type": TEXT, "Content-Length": str(len(body))}, (body,))


def status_line(status: int) -> str:
    """Return the status as WSGI wants it."""
    return f"{status} {HTTPStatus(status).phrase}"


def from_wsgi(environ: Mapping[str, Any], max_body_bytes: int) -> Request:
    """Return the request that `environ` holds; raises QueryError for a URL that is not UTF-8."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    chunked = bool(environ.get("wsgi.input_terminated"))
    length = None if chunked else int(environ.get("CONTENT_LENGTH") or 0)
    return Request(
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        headers,
        _url_parameters(environ.get("QUERY_STRING", "")),
        Received(environ["wsgi.input"], length, max_body_bytes),
        environ["kappa.wire"],
    )


def _url_parameters(text: str) -> dict[str, str]:
    # WSGI hands the bytes of the URL over as Latin-1.
    pairs = parse_qsl(text, keep_blank_values=True, encoding="latin-1")
    try:
        return {_utf8(name): _utf8(value) for name, value in pairs}
    except UnicodeDecodeError:
        raise syntax("the URL's parameters are not UTF-8") from None


def _utf8(text: str) -> str:
    return text.encode("latin-1").decode()


def form_fields(content_type: str, body: bytes) -> dict[str, str]:
    """Return the fields of a multipart form, in which long parameters are sent.

    Raises QueryError for a form with files, which are external tables.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields = {}
    for part in message.iter_parts() if message.is_multipart() else ():
        assert isinstance(part, email.message.EmailMessage)
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise syntax(f"external tables ('{name}') are not offered here")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode()
    return fields
