"""The chat page: the files of `moorline.web`, served as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from importlib.util import find_spec
from types import MappingProxyType

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

PACKAGE = "moorline.web"

INDEX = "index.html"

TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml; charset=utf-8",
    }
)
"""The files that are served, by their endings."""

HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""The page runs its own scripts only, shows pictures that it has fetched as its device, and nobody may frame it."""


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{blake2b(self.content, digest_size=16).hexdigest()}"'

    def answer(self, request: Request) -> Response:
        headers = {**HEADERS, "ETag": self.etag}
        if self.etag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def page() -> APIRouter:
    """`/`, and each of the page's files beside it."""
    routes = APIRouter(include_in_schema=False)
    for name, file in _files():

        async def answer(request: Request, file: _File = file) -> Response:
            return file.answer(request)

        path = "/" if name == INDEX else f"/{name}"
        routes.add_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)
    return routes


def _files() -> Iterator[tuple[str, _File]]:
    if find_spec(PACKAGE) is None:
        return
    for file in files(PACKAGE).iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None and file.is_file():
            yield file.name, _File(file.read_bytes(), kind)
