"""What happens to a request before its route reads it, and to the answer after: limits, the caller, errors, headers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from moorline.http.accept import preferred
from moorline.http.body import BoundedBody
from moorline.http.device_auth import RENEWED, Auth, Caller
from moorline.http.limits import RateLimits
from moorline.http.problems import Problem
from moorline.http.settings import HttpSettings
from moorline.settings import Settings

JSON = "application/json"

HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
"""On every answer, unless it says otherwise."""

BODY = 2**20
"""The most bytes of a body without files."""

Check = Callable[[Request], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Lets requests through to the routes of one router."""

    auth: Auth
    limits: RateLimits
    settings: HttpSettings

    async def device(self, request: Request) -> None:
        """For what belongs to a device: finds out which, before anything of the body is read."""
        await self.limits.address(request)
        caller = await self.auth.caller(request)
        await self.limits.device(caller.device_id)
        request.state.moorline_caller = caller

    async def new_device(self, request: Request) -> None:
        """For a request for a new device: anybody may make one, but not many."""
        await self.limits.address(request)
        await self.limits.new_device(request)

    def route(self, check: Check, *offered: str, with_files: Settings | None = None) -> type[APIRoute]:
        """A class of routes that make `check` first, and answer every error with a problem. `with_files` says how large
        the files may be that come with what is sent there."""
        settings = self.settings
        room = 0 if with_files is None or not with_files.files_max else with_files.files_total_max * 4 // 3
        largest = settings.body_max or BODY + room

        class Guarded(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def answer(request: Request) -> Response:
                    body = BoundedBody(request.receive, largest=largest, seconds=settings.body_timeout)
                    try:
                        preferred(request.headers.get("Accept", ""), offered or (JSON,))
                        await check(request)
                        response = await handle(Request(request.scope, body))
                    except Exception as error:
                        response = Problem.of(error).response()
                    for name, value in HEADERS.items():
                        response.headers.setdefault(name, value)
                    renewed = getattr(request.state, "moorline_caller", _NOBODY).renewed_token
                    if renewed is not None:
                        response.headers[RENEWED] = renewed
                    return response

                return answer

        return Guarded


_NOBODY = Caller(device_id="")


def caller_of(request: Request) -> Caller:
    """The device that asks, as `Guard.device` found out."""
    return cast("Caller", request.state.moorline_caller)
