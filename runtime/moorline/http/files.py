"""Files over HTTP: as they come with a message, and given back as downloads."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from mimetypes import guess_extension
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from moorline.files import File, Said
from moorline.http.device_auth import Caller
from moorline.http.errors import InvalidRequest, NotFound
from moorline.http.guard import JSON, Guard, caller_of
from moorline.http.openapi import problems
from moorline.http.schemas import FileBody, FileData, FilesMessage, LimitsBody

if TYPE_CHECKING:
    from moorline.runtime import Moorline

ANY = "application/octet-stream"

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What somebody has sent is no page of ours, whatever a browser makes of it."""

CONTENT = {
    "description": "The file, as a download.",
    "content": {ANY: {"schema": {"type": "string", "format": "binary"}}},
    "headers": {"Content-Disposition": {"schema": {"type": "string"}}},
}


def said(message: FilesMessage) -> Said:
    """What the person says, in words and files. Raises `InvalidRequest` for what is no base64."""
    return [message.text, *_files(message.files)]


def _files(bodies: Sequence[FileBody]) -> list[File]:
    files = []
    for body in bodies:
        if not isinstance(body, FileData):
            files.append(File(url=body.url, name=body.name, type=body.type))
            continue
        try:
            data = b64decode(body.data, validate=True)
        except ValueError:
            raise InvalidRequest("body.files: the data of a file must be base64.") from None
        files.append(File(data, name=body.name, type=body.type))
    return files


def files(moorline: Moorline, guard: Guard) -> APIRouter:
    """The routes that say which files are accepted, and give them back."""
    routes = APIRouter(
        prefix="/v1",
        tags=["device"],
        route_class=guard.route(guard.device, JSON, ANY, *sorted(moorline.settings.file_types)),
        responses=problems(400, 401, 404, 406, 422, 429, 500, 503),
    )

    @routes.get("/limits", response_model=LimitsBody)
    async def limits() -> dict[str, Any]:
        """What the files of a message may be, so that a client can say so before it sends them."""
        settings = moorline.settings
        total = settings.files_total_max
        if guard.settings.body_max is not None:
            total = min(total, guard.settings.body_max * 3 // 4)  # in base64
        return {
            "file_types": sorted(settings.file_types),
            "file_max": min(settings.file_max, total),
            "files_max": settings.files_max,
            "files_total_max": total,
        }

    @routes.get("/files/{file_hash}", response_class=Response, responses={200: CONTENT})
    async def download(
        caller: Annotated[Caller, Depends(caller_of)],
        file_hash: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Its `hash` in the transcript.")],
    ) -> Response:
        """A file that came with a message of the device's conversation, as a download."""
        found = await moorline.file(caller.device_id, file_hash)
        if found is None:
            raise NotFound("The conversation has no such file, or no longer.")
        name = f"{file_hash[:12]}{guess_extension(found.type) or ''}"
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return Response(found.data, media_type=found.type, headers=headers)

    return routes
