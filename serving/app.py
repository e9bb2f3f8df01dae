"""The application: the routes of the API, the live socket, and the dashboard's files."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from deploy.hosts import Names
from deploy.settings import Settings
from serving.api import add_api
from serving.build import build_id
from serving.errors import ApiError, unknown
from serving.guard import Guard
from serving.live import MAX_CLIENTS, Hub, refuse
from serving.metrics import ServingMetrics
from serving.reading import QUERY_SECONDS, Readers
from serving.sampler import Sampler
from serving.timing import Timing

STATIC = Path(__file__).parent / "static"
_READY_SECONDS = 15.0
_DESCRIPTION = (
    "Reads the views in ClickHouse. Every error is JSON with one sentence, `error`. "
    "`/api/live` is a WebSocket with a picture of the whole stack each second."
)


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the stack that `settings` lead to."""
    metrics = ServingMetrics()
    hub = Hub(metrics)
    metrics.count_clients(lambda: hub.clients)
    readers = Readers(settings)
    build = build_id(Path(__file__).parent)
    # The picture's sources have threads of their own, which may wait.
    views = partial(readers.views, QUERY_SECONDS)
    sampler = Sampler(settings, build, metrics, views, lambda: hub.clients > 0)

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        sampler.start()
        ticking = asyncio.create_task(sampler.run(hub.publish))
        try:
            yield
        finally:
            ticking.cancel()
            sampler.end()
            readers.close()

    app = FastAPI(
        title="kappa-views",
        description=_DESCRIPTION,
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    names = Names([settings.serving_host, *settings.serving_names.split(",")])
    app.add_middleware(Timing, metrics=metrics)
    app.add_middleware(Guard, names=names)
    _add_errors(app)
    add_api(app, readers)
    _add_live(app, hub, sampler, names, metrics)
    _add_operations(app, sampler, metrics)
    _add_files(app, build)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, 400)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        sentence = f"{error.detail}."
        if error.status_code == 404:
            known = {getattr(route, "path", "") for route in app.routes} - {""}
            sentence = str(unknown("page", request.url.path, known))
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "The server failed at this; its log says why."}, 500)


def _add_live(
    app: FastAPI, hub: Hub, sampler: Sampler, names: Names, metrics: ServingMetrics
) -> None:
    @app.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        host = socket.headers.get("host", "")
        if not names.known(host) or not names.same_origin(socket.headers.get("origin"), host):
            metrics.refused.labels("origin").inc()
            await refuse(socket, full=False)
        elif hub.clients >= MAX_CLIENTS:
            metrics.refused.labels("full").inc()
            await refuse(socket, full=True)
        else:
            first = hub.clients == 0
            await socket.accept()
            await hub.serve(socket, sampler.hurry if first else lambda: None)

    @app.get("/api/snapshot", summary="The newest picture that /api/live sends", tags=["live"])
    async def snapshot() -> Response:
        return Response(hub.newest, media_type="application/json")


def _add_operations(app: FastAPI, sampler: Sampler, metrics: ServingMetrics) -> None:
    @app.get("/healthz", summary="Whether the server runs", tags=["operations"])
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether ClickHouse answers", tags=["operations"])
    async def readyz() -> JSONResponse:
        reading = sampler.clickhouse_answers()
        if reading.problem:
            return JSONResponse({"error": reading.problem}, 503)
        if time.time() - reading.at > _READY_SECONDS:
            return JSONResponse({"error": "ClickHouse has not answered yet."}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", summary="Metrics for Prometheus", tags=["operations"])
    def show_metrics() -> Response:
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_files(app: FastAPI, build: str) -> None:
    files: dict[str, Any] = {"include_in_schema": False}
    page = (STATIC / "index.html").read_text().replace("{build}", build)

    @app.get("/", **files)
    async def dashboard() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/docs", **files)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    @app.get("/favicon.ico", **files)
    async def icon() -> FileResponse:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
