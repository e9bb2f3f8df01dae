"""The routes that answer with rows: the list of views, the rows of one, one page's figures."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from serving.catalogue import ViewInfo
from serving.errors import ApiError, bad_request, unknown
from serving.formats import MEDIA_TYPES, arrow_bytes, as_bytes, csv_bytes, json_rows, readable
from serving.panels import STATS
from serving.query import DEFAULT_LIMIT, MAX_LIMIT, Format, bindable, statement
from serving.reading import Readers
from sinks.sql import identifier

# Proxies take headers of so many bytes at least.
_MOST_LINK = 4_000
_Time = "Instant: ISO 8601, which is UTC without a zone, or epoch milliseconds."
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request can't be answered as it is; `error` says why."},
    404: {"description": "No such name; `error` has the nearest one."},
    503: {"description": "ClickHouse does not answer, or too many queries run."},
}


def add_api(app: FastAPI, readers: Readers) -> None:
    """Add the routes to `app`; they read through `readers`, in threads."""

    @app.get(
        "/api/views", summary="All views with their columns, keys and versions", tags=["views"]
    )
    async def list_views() -> dict[str, Any]:
        known = await readers.work(readers.views)
        return {"views": [_described(view) for view in known.values()]}

    @app.get(
        "/api/views/{view}",
        summary="Rows of one view",
        description="Each key column is a parameter of its own; given several times, any of its "
        "values will do. Pages follow by the cursor in `next`, also in the `Link` header where "
        "that is short enough.",
        tags=["views"],
        responses=_ERRORS,
    )
    async def rows(
        request: Request,
        view: str,
        from_: Annotated[str | None, Query(alias="from", description=_Time)] = None,
        to: Annotated[str | None, Query(description=f"First instant not wanted. {_Time}")] = None,
        order: Annotated[
            str | None, Query(description='A column, with "-" before it for falling values.')
        ] = None,
        limit: Annotated[
            str | None, Query(description=f"1 to {MAX_LIMIT}; {DEFAULT_LIMIT} by default.")
        ] = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        format: Annotated[str | None, Query(description="json, csv or arrow.")] = None,
    ) -> Response:
        return await readers.work(lambda: _page(readers, view, request))

    @app.get(
        "/api/page-stats/{page_id:path}",
        summary="All-time figures of one page",
        description=f"The row of view {STATS}; page ids may have slashes.",
        tags=["views"],
        responses=_ERRORS,
    )
    async def page_stats(page_id: Annotated[str, Path(max_length=2000)]) -> dict[str, Any]:
        return await readers.work(lambda: _one_page(readers, page_id))


def _described(view: ViewInfo) -> dict[str, Any]:
    return {
        "name": view.name,
        "description": view.doc,
        "version": view.version,
        "versions": view.versions,
        "key": view.key,
        "time": view.time_column,
        "stored_rows": view.stored_rows,
        "columns": [
            {
                "name": column.name,
                "type": column.plain_type,
                "nullable": column.nullable,
                "description": column.doc,
            }
            for column in view.columns
        ],
    }


def _page(readers: Readers, name: str, request: Request) -> Response:
    known = readers.views()
    if name not in known:
        raise unknown("view", name, known)
    view = known[name]
    asked = statement(readers.database, view, request.query_params.multi_items())
    found = readers.rows(asked.sql, asked.parameters, asked.limit + 1)
    more, found = found.num_rows > asked.limit, found.slice(0, asked.limit)
    last = as_bytes(found.slice(asked.limit - 1, 1)).to_pylist() if more else []
    following = asked.next_cursor(last[0]) if last else None
    headers = {} if following is None else _link(request, following, asked.format)
    shown = readable(found)
    if asked.format is Format.JSON:
        document = {
            "view": view.name,
            "version": view.version,
            "columns": [column.name for column in view.columns],
            "rows": json_rows(shown),
            "next": following,
        }
        return JSONResponse(document, headers=headers)
    body = csv_bytes(shown) if asked.format is Format.CSV else arrow_bytes(shown)
    headers["content-disposition"] = f'attachment; filename="{view.name}.{asked.format}"'
    return Response(body, media_type=MEDIA_TYPES[asked.format], headers=headers)


def _link(request: Request, cursor: str, output: Format) -> dict[str, str]:
    """Return the header that leads to the next page; JSON, which has the cursor, can do without."""
    kept = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    link = f'<{request.url.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'
    if len(link) <= _MOST_LINK:
        return {"link": link}
    if output is Format.JSON:
        return {}
    raise bad_request(
        "The next page's address is too long for a header; ask for JSON, or order by another "
        "column."
    )


def _one_page(readers: Readers, page_id: str) -> dict[str, Any]:
    view = readers.views().get(STATS)
    if view is None:
        raise ApiError(
            404, f"View {STATS} has no data yet, or its job does not run; `kappa views` names it."
        )
    if not view.has("page_id"):
        raise ApiError(404, f"View {STATS} has no column page_id.")
    page_id = bindable("page_id", page_id)
    names = ", ".join(identifier(column.name) for column in view.columns)
    sql = (
        f"SELECT {names} FROM {identifier(readers.database)}.{identifier(STATS)}"
        " WHERE page_id = {page:String} LIMIT 1"
    )
    found = json_rows(readable(readers.rows(sql, {"page": page_id}, 1)))
    if not found:
        shown = page_id if len(page_id) <= 100 else f"{page_id[:100]}…"
        raise ApiError(404, f'No view of page "{shown}" has been counted; ids begin with a slash.')
    return {"view": STATS, "version": view.version, **found[0]}
