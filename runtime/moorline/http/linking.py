"""The routes by which devices of a person are linked. No answer names another device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends
from starlette.requests import Request

from moorline.http.device_auth import Caller
from moorline.http.guard import Guard, caller_of
from moorline.http.limits import address_of
from moorline.http.openapi import problems
from moorline.http.schemas import CodeBody, DevicesBody, LinkBody, UnlinkedBody
from moorline_checkpoint.people import CODE_SECONDS, LinkedDevice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moorline.runtime import Moorline

CallerOf = Annotated[Caller, Depends(caller_of)]


def linking(moorline: Moorline, guard: Guard) -> APIRouter:
    """The routes."""
    routes = APIRouter(
        prefix="/v1",
        tags=["device"],
        route_class=guard.route(guard.device),
        responses=problems(400, 401, 406, 422, 429, 500, 503),
    )

    @routes.post("/link-codes", status_code=201, response_model=CodeBody)
    async def new_code(caller: CallerOf) -> dict[str, Any]:
        """A code with which another device can join the conversation of this one, once. It replaces the one before."""
        return {"code": await moorline.link_code(caller.device_id), "expires_in": CODE_SECONDS}

    @routes.post("/link", response_model=DevicesBody, responses=problems(404, 408, 409, 413, 504))
    async def link(request: Request, caller: CallerOf, body: Annotated[LinkBody, Body()]) -> dict[str, Any]:
        """The device joins the conversation that the code is of, after its messages that were sent before."""
        found = await moorline.link(caller.device_id, body.code, address=address_of(request))
        return _without_names(found, caller)

    @routes.delete("/link", response_model=UnlinkedBody, responses=problems(409, 504))
    async def unlink(caller: CallerOf) -> dict[str, bool]:
        """The device leaves the conversation that it shares, after its messages that were sent before."""
        return {"unlinked": await moorline.unlink(caller.device_id)}

    @routes.get("/devices", response_model=DevicesBody)
    async def devices(caller: CallerOf) -> dict[str, Any]:
        """The devices that have the same conversation as this one."""
        return _without_names(await moorline.devices(caller.device_id), caller)

    return routes


def _without_names(found: Sequence[LinkedDevice], caller: Caller) -> dict[str, Any]:
    return {"devices": [{"this": each.device_id == caller.device_id, "linked_at": each.linked_at} for each in found]}
