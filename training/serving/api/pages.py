"""The pages for people, /ui and /ui/model: the files of the folder ui/, and pictures of the served model folder.

They are answered in front of BentoML's middleware, so its metrics count requests for answers alone. Addresses inside
the pages are relative: they work behind a proxy that adds a prefix.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from training.model.folder import ModelFolder

FOLDER = Path(__file__).parents[1] / "ui"
HTML = {"/ui": "index.html", "/ui/model": "model.html"}
FILES = "/ui/files/"
PICTURES = {"/ui/samples/": "self_check", "/ui/mistakes/": "mistakes"}  # address -> key of the card, and its folder
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


class _Fresh(StaticFiles):
    """Files that a browser may keep, but asks about each time (ETag): what was deployed is what is seen."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Pages:
    """ASGI middleware: the pages in front of `app`."""

    def __init__(self, app: ASGIApp, folder: ModelFolder) -> None:
        self.app = app
        self.pictures = {
            address: [Path(record["file"]).name for record in folder.card.get(key, [])]
            for address, key in PICTURES.items()
        }
        small = [Middleware(GZipMiddleware)]
        files = _Fresh(directory=FOLDER)
        self.pages = Starlette(
            routes=[
                *(Route(path, _page(files, name), middleware=small) for path, name in HTML.items()),
                Mount(FILES, files, middleware=small),
                *(
                    Mount(address, _Fresh(directory=folder.path / PICTURES[address]))
                    for address, names in self.pictures.items()
                    if names
                ),
            ]
        )

    @property
    def paths(self) -> set[str]:
        """Every address there is."""
        found = {*HTML, *(FILES + path.name for path in FOLDER.iterdir() if path.suffix != ".html")}
        return found | {address + name for address, names in self.pictures.items() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mine = scope["type"] == "http" and (scope["path"] in HTML or scope["path"].startswith("/ui/"))
        await (self.pages if mine else self.app)(scope, receive, send)


def _page(files: StaticFiles, name: str) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        response = await files.get_response(name, request.scope)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return page
