"""The application: pages, the modules and data they ask for, and the guard before it all.

Files are served by name from a list made at the start, never from a path that was put together.
Each area's routes stand in a module of their own; a handler finds the runs in
`request.app.state.runs`.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from traitscope.viewer import (
    beside_api,
    compare_api,
    internals_api,
    run_api,
    table_api,
    text_api,
    together_api,
)
from traitscope.viewer.answers import ERRORS
from traitscope.viewer.guard import Guard
from traitscope.viewer.open_runs import OpenRuns

__all__ = ["make_app"]

STATIC = Path(__file__).parent / "static"
# said by us: what the system's own tables say differs between machines
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def make_app(runs: OpenRuns, *, token: str = "", hosts: frozenset[str] = frozenset()) -> Guard:
    """The viewer of these runs, behind its guard; without a token it asks for none."""
    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/static/{name:path}", _file),
            *run_api.routes(),
            *text_api.routes(),
            *internals_api.routes(),
            *beside_api.routes(),
            *table_api.routes(),
            *compare_api.routes(),
            *together_api.routes(),
        ],
        exception_handlers=ERRORS,
    )
    app.state.runs = runs
    app.state.files = _files()
    return Guard(app, token, hosts)  # outermost: an error's page has the headers too


def _files() -> dict[str, Path]:
    """Every file of the pages by its name."""
    return {
        path.relative_to(STATIC).as_posix(): path
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in _TYPES
    }


async def _index(request: Request) -> Response:
    return _send(request, "index.html")


async def _file(request: Request) -> Response:
    return _send(request, request.path_params["name"])


def _send(request: Request, name: str) -> Response:
    path = request.app.state.files.get(name)
    if path is None:
        raise HTTPException(404)
    # the browser keeps it and asks whether it is still the same
    return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})
