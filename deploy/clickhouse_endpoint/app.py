"""ClickHouse's HTTP interface as a WSGI application: paths, passwords, failures."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from deploy.clickhouse_endpoint import access, answers, messages
from deploy.clickhouse_endpoint.engine import About
from deploy.clickhouse_endpoint.errors import QueryError, of_endpoint
from deploy.clickhouse_endpoint.messages import Request, Response, plain
from deploy.clickhouse_endpoint.metrics import CONTENT_TYPE, Metrics
from deploy.clickhouse_endpoint.queries import Queries
from deploy.hosts import Names

_log = logging.getLogger(__name__)
_DRAIN_BYTES = 4 * 1024 * 1024


class Application:
    """Answers requests from one engine; `max_body_bytes` bounds a request's body.

    `names` are those under which it is reached.
    """

    def __init__(
        self,
        queries: Queries,
        about: About,
        users: access.Users,
        metrics: Metrics,
        max_body_bytes: int,
        names: Names,
    ) -> None:
        self._queries = queries
        self._about = about
        self._users = users
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._names = names

    def __call__(self, environ: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one WSGI request."""
        try:
            request = messages.from_wsgi(environ, self._max_body_bytes)
        except QueryError as error:
            environ["kappa.wire"].close_after()
            response = self._failure(error)
        else:
            response = self._answer(request)
        start_response(messages.status_line(response.status), list(response.headers.items()))
        return () if environ["REQUEST_METHOD"] == "HEAD" else response.body

    def _answer(self, request: Request) -> Response:
        try:
            response = self._route(request)
        except QueryError as error:
            response = self._failure(error)
        except Exception as error:
            _log.exception("query %s failed in the endpoint itself", request.query_id)
            response = self._failure(of_endpoint(error))
        # What is left of a body would be taken for the next request.
        if not request.body.ended and not request.body.drain(_DRAIN_BYTES):
            request.wire.close_after()
        return response

    def _failure(self, error: QueryError) -> Response:
        self._metrics.failures.labels(error.name).inc()
        return answers.failure(error, self._about)

    def _route(self, request: Request) -> Response:
        if request.method not in ("GET", "POST"):
            return plain(404 if request.method == "HEAD" else 405, "Use GET or POST.\n")
        if request.path in ("/ping", "/replicas_status"):
            return plain(200, "Ok.\n")
        if request.path == "/metrics":
            text = self._metrics.text()
            headers = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(text))}
            return Response(200, headers, (text,))
        if request.path != "/":
            return plain(404, f"There is no handle {request.path}\n")
        refused = _refusal(request.headers, self._names)
        if refused is not None:
            return refused
        if request.method == "GET" and not request.parameters:
            return plain(200, "Ok.\n")
        name, password = access.credentials(request.headers, request.parameters)
        return self._queries.answer(request, self._users.authenticate(name, password))


def _refusal(headers: Mapping[str, str], names: Names) -> Response | None:
    """Return the answer to what a page of some other site makes a browser ask.

    Such a page can know the password, which often is the default one.
    """
    host = headers.get("host", "")
    if not names.known(host):
        return plain(
            421,
            "ClickHouse is reached as localhost here, or by a loopback address; add another name "
            "to KAPPA_CLICKHOUSE_NAMES.\n",
        )
    foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if foreign or not names.same_origin(headers.get("origin"), host):
        return plain(403, "Pages of other sites may not ask ClickHouse here.\n")
    return None
