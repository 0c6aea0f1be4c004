"""Problems: how every error is told over HTTP, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from moorline.errors import (
    AlreadyLinked,
    FileUnavailable,
    InternalError,
    InvalidContext,
    InvalidDeviceID,
    InvalidMessage,
    LinkRefused,
    MessageSetAside,
    MoorlineError,
    NothingWaits,
    SessionBusy,
    StaleTurn,
    StoreUnavailable,
    TooManyTries,
    TurnTimeout,
    UsageError,
)
from moorline.http.errors import (
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    InvalidRequest,
    IssuerUnavailable,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RequestError,
    TooManyRequests,
    Unidentified,
)
from moorline.http.schemas import FORMS

logger = logging.getLogger("moorline.http")

PROBLEM = "application/problem+json"

STATUSES: Mapping[type[Exception], int] = {
    BadRequest: 400,
    InvalidContext: 400,
    InvalidDeviceID: 400,
    Unidentified: 401,
    LinkRefused: 404,
    NotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    BodyTooSlow: 408,
    AlreadyLinked: 409,
    MessageSetAside: 409,
    NothingWaits: 409,
    SessionBusy: 409,
    StaleTurn: 409,
    BodyTooLarge: 413,
    InvalidMessage: 422,
    InvalidRequest: 422,
    FileUnavailable: 424,
    TooManyRequests: 429,
    TooManyTries: 429,
    IssuerUnavailable: 503,
    StoreUnavailable: 503,
    UsageError: 503,
    TurnTimeout: 504,
}
"""The status of each error; docs/http.md explains it. The nearest class counts. An error that has none is 503 if it is
retryable, else 500; `SessionBusy` is 429 if as many messages wait as may."""

_HIDDEN = {
    500: "The request failed on the server, whose log says why. The same request will fail again.",
    503: "The request cannot be answered at the moment; try again, a message with its message_id.",
}
"""What is told instead of an error's own text, which may name servers and what they said."""

_BY_STATUS: Mapping[int, tuple[type[RequestError], str]] = {
    400: (BadRequest, "The request cannot be read; correct it."),
    404: (NotFound, "There is nothing at this path."),
    405: (MethodNotAllowed, "The path does not take this method; the header Allow names those that it takes."),
}
"""What the framework says with a status alone."""

RETRY = 1.0
"""Seconds after which a failed request may be tried again if its error does not say."""

_SOON = {409, 424, 429, 503}
"""The statuses of what may succeed soon."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as a caller is told of it."""

    status: int
    error: str
    """The name of the error's class."""
    detail: str
    retryable: bool = False
    message_id: str | None = None
    effects_kept: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """The problem that an error is. What is the server's own fault is logged, and its text is not told."""
        match error:
            case HTTPException(__cause__=RequestError() as cause):  # the framework wraps it while it reads the body
                return _of_request(cause)
            case HTTPException():
                return _by_status(error)
            case RequestValidationError():
                return _of_request(_invalid(error))
            case RequestError():
                return _of_request(error)
            case MoorlineError():
                return _ours(error)
            case _:
                logger.error("A request failed.", exc_info=error)
                return _ours(InternalError("A request failed."), logged=True)

    def to_json(self) -> dict[str, Any]:
        """The members of the problem."""
        return {
            "type": f"urn:moorline:{self.error}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.error,
            "retryable": self.retryable,
            "message_id": self.message_id,
            "effects_kept": self.effects_kept,
        }

    def response(self) -> JSONResponse:
        """The answer to the request that failed."""
        return JSONResponse(self.to_json(), self.status, headers=dict(self.headers), media_type=PROBLEM)


def status_of(error: MoorlineError) -> int:
    """See `STATUSES`."""
    if isinstance(error, SessionBusy) and error.full:
        return 429
    found = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    return found or (503 if error.retryable else 500)


def _ours(error: MoorlineError, *, logged: bool = False) -> Problem:
    status = status_of(error)
    if status in _HIDDEN and not logged:
        logger.error("A request of %s failed: %s: %s", error.device_id, type(error).__name__, error)
    retryable = error.retryable or isinstance(error, UsageError)
    wait = error.retry_after if isinstance(error, SessionBusy | TooManyTries) else RETRY
    again = retryable and status in _SOON
    return Problem(
        status=status,
        error=type(error).__name__,
        detail=_HIDDEN.get(status) or str(error),
        retryable=retryable,
        message_id=error.message_id,
        effects_kept=error.effects_kept,
        headers=_retry_after(wait) if again else {},
    )


def _of_request(error: RequestError) -> Problem:
    match error:
        case Unidentified():
            headers = {"WWW-Authenticate": "Bearer"}
        case BodyTooLarge() | BodyTooSlow():
            headers = {"Connection": "close"}  # the rest of the body is not read
        case TooManyRequests():
            headers = _retry_after(error.retry_after)
        case IssuerUnavailable():
            headers = _retry_after(RETRY)
        case _:
            headers = {}
    return Problem(
        status=STATUSES[type(error)],
        error=type(error).__name__,
        detail=str(error),
        retryable=error.retryable,
        headers=headers,
    )


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, ceil(seconds)))}


def _by_status(error: HTTPException) -> Problem:
    if error.status_code in _BY_STATUS:
        kind, detail = _BY_STATUS[error.status_code]
        name = kind.__name__
    else:
        name, detail = HTTPStatus(error.status_code).phrase.title().replace(" ", ""), str(error.detail)
    return Problem(status=error.status_code, error=name, detail=detail, headers=error.headers or {})


def _invalid(error: RequestValidationError) -> RequestError:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return BadRequest('The body is not JSON; send an object such as {"text": "hello"}.')
    said = dict.fromkeys(f"{_place(fault['loc'])}: {fault['msg']}" for fault in faults)
    return InvalidRequest(f"{'; '.join(said)}.")


def _place(loc: Sequence[str | int]) -> str:
    """Where a fault is: in a body without the form's name, which no client has written."""
    match loc:
        case ("body", str(form), *inside) if form in FORMS and inside:
            return ".".join(map(str, ("body", *inside)))
        case _:
            return ".".join(map(str, loc))
