"""What OpenAPI says of every route: its problems, and how a request says who is asking."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Header, Security
from fastapi.security import HTTPBearer

from moorline.http.device_auth import HEADER
from moorline.http.problems import PROBLEM
from moorline.http.schemas import ProblemBody
from moorline.http.settings import DeviceAuth

_MEANINGS: Mapping[int, str] = {
    400: "The request cannot be read, or its device ID cannot be used.",
    401: "The request does not say who is asking, or does not prove it.",
    404: "There is no such file; or no such code, or it was used or has expired.",
    406: "The request accepts none of the types that this path answers with.",
    408: "The body did not arrive in time.",
    409: "The device is busy, or the message cannot be answered any more; or it has that conversation already.",
    413: "The body is too large.",
    422: "A value is missing or wrong.",
    424: "A file could not be fetched from its address.",
    429: "Too many requests, too many messages of the device wait, or too many codes were wrong.",
    500: "The request failed on the server.",
    503: "The service cannot answer at the moment.",
    504: "The turn took too long.",
}

_BEARER = HTTPBearer(auto_error=False, description=f"The device's token. A header {HEADER} beside it must agree.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route with these problems."""
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds after which to try again."}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        found[status] = {
            "description": _MEANINGS[status],
            "content": {PROBLEM: {"schema": ProblemBody.model_json_schema()}},
        }
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            found[status]["headers"] = retry
    return found


def identification(mode: DeviceAuth) -> Any:
    """The header that a request of a device needs. The guard has read it before; this tells OpenAPI of it."""
    return Depends(_named) if mode == "none" else Security(_BEARER)


def _named(
    _: Annotated[
        str,
        Header(alias=HEADER, description="The device that asks.", min_length=1, max_length=128, pattern=r"^[!-~]+$"),
    ],
) -> None: ...
