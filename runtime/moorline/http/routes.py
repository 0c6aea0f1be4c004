"""The routes of the HTTP face: messages, transcript, session, device, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Annotated, Any, assert_never

from fastapi import APIRouter, Body, Depends, FastAPI, Path, Query
from fastapi.sse import EventSourceResponse
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moorline.context import MAX_MESSAGE_ID, Resume, TurnContext
from moorline.errors import StoreUnavailable
from moorline.files import Said
from moorline.http import files, stream
from moorline.http.accept import preferred
from moorline.http.auth_modes import auth_for
from moorline.http.device_auth import Caller
from moorline.http.guard import JSON, Guard, caller_of
from moorline.http.limits import RateLimits
from moorline.http.linking import linking
from moorline.http.openapi import identification, problems
from moorline.http.schemas import (
    MESSAGE_ID,
    AnswerMessage,
    DeviceBody,
    FilesMessage,
    HealthBody,
    IncomingBody,
    ReplyBody,
    SessionBody,
    StopBody,
    TextMessage,
    TranscriptBody,
)
from moorline.http.settings import DeviceAuth, HttpSettings
from moorline.http.signed import Signed
from moorline.http.stream import EVENT_STREAM, EventFeed

if TYPE_CHECKING:
    from moorline.runtime import Moorline
    from moorline_checkpoint.transcripts import TranscriptEntry

READY_SECONDS = 5.0
"""Seconds that the database has to answer in before the process counts as not ready."""

PAGE = 50
"""Turns of a page of the transcript, unless the request says otherwise."""

LARGEST_PAGE = 100

MAX_TURN_NO = 2**63 - 1

Values = Callable[[Request, str], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""What the server itself knows of a request and its verified device, for the turn's context: a customer number, for
example."""

CallerOf = Annotated[Caller, Depends(caller_of)]

EVENTS = {
    "description": "The reply, or with `Accept: text/event-stream` the events of the turn as it runs.",
    "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
}


class MessageIDConvertor(PathConvertor):
    """A message ID in a path: unlike what is a path to Starlette, it may have line breaks in it, beside slashes."""

    regex = "(?s:.*)"


register_url_convertor("moorline_message_id", MessageIDConvertor())


def router(
    moorline: Moorline,
    *,
    device_auth: DeviceAuth | None = None,
    values: Values | None = None,
    settings: HttpSettings | None = None,
) -> APIRouter:
    """The HTTP face of a `Moorline`, for `app.include_router(router(moorline))`, also with a prefix. While the app
    runs, the `Moorline` is open; one that is open already stays so.

    `device_auth` goes before `MOORLINE_DEVICE_AUTH`. With neither, a device ID is believed as it is, but only from this
    machine. `values(request, device_id)` gives the context of each turn what the server itself knows of the device that
    asks; it may be async. A `person_id` among it says whose device it is. Nothing that a client sends gets into the
    context.

    Raises `ConfigurationError` if the settings are not enough for the mode.
    """
    settings = settings or HttpSettings()
    mode = device_auth or settings.device_auth
    limits = RateLimits(settings, moorline)
    auth = auth_for(mode, moorline, settings)
    guard = Guard(auth=auth, limits=limits, settings=settings)
    outer = APIRouter(lifespan=_opening(moorline, limits))
    outer.include_router(_messages(moorline, guard, values), dependencies=[identification(mode or "none")])
    outer.include_router(_stopping(moorline, guard), dependencies=[identification(mode or "none")])
    outer.include_router(_conversation(moorline, guard), dependencies=[identification(mode or "none")])
    outer.include_router(files.files(moorline, guard), dependencies=[identification(mode or "none")])
    outer.include_router(linking(moorline, guard), dependencies=[identification(mode or "none")])
    if isinstance(auth, Signed):
        outer.include_router(_devices(auth, guard))
    outer.include_router(_health(moorline, guard))
    return outer


def _messages(moorline: Moorline, guard: Guard, values: Values | None) -> APIRouter:
    routes = APIRouter(
        prefix="/v1",
        tags=["messages"],
        route_class=guard.route(guard.device, JSON, EVENT_STREAM, with_files=moorline.settings),
        responses=problems(400, 401, 406, 408, 409, 413, 422, 424, 429, 500, 503, 504),
    )

    @routes.post("/messages", response_model=ReplyBody, responses={200: EVENTS})
    async def send_message(request: Request, caller: CallerOf, message: Annotated[IncomingBody, Body()]) -> Response:
        """Answers a message, in one turn of the device. A message that comes again with its `message_id` gets the same
        turn's reply. A client that goes away does not end the turn."""
        said = _said(message)
        known = dict(await _values(values, request, caller.device_id))
        context = TurnContext(
            device_id=caller.device_id,
            message_id=message.message_id,
            person_id=known.pop("person_id", None),
            on_cancel="finish",
            values=known,
        )
        if preferred(request.headers.get("Accept", ""), (JSON, EVENT_STREAM)) == JSON:
            return JSONResponse((await moorline.run(said, context)).to_json())
        feed = EventFeed(moorline.stream(said, context))
        return EventSourceResponse(feed.lines(await feed.begin()), headers=stream.HEADERS)

    return routes


def _stopping(moorline: Moorline, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/v1",
        tags=["messages"],
        route_class=guard.route(guard.device),
        responses=problems(400, 401, 406, 422, 429, 500, 503),
    )

    @routes.post("/messages/{message_id:moorline_message_id}/stop", response_model=StopBody)
    async def stop_message(
        caller: CallerOf,
        message_id: Annotated[
            str,
            Path(max_length=MAX_MESSAGE_ID, pattern=MESSAGE_ID, description="The ID of the message that is answered."),
        ],
    ) -> dict[str, bool]:
        """Ends the turn of a message with what there is: no further model or tool is called, and what tools have done
        stands. The reply goes to whoever sent the message."""
        return {"stopped": await moorline.stop(caller.device_id, message_id)}

    return routes


def _conversation(moorline: Moorline, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/v1",
        tags=["device"],
        route_class=guard.route(guard.device),
        responses=problems(400, 401, 406, 422, 429, 500, 503),
    )

    @routes.get("/transcript", response_model=TranscriptBody)
    async def transcript(
        caller: CallerOf,
        before: Annotated[int | None, Query(ge=1, le=MAX_TURN_NO, description="Only turns before this one.")] = None,
        limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="The most turns.")] = PAGE,
    ) -> dict[str, Any]:
        """The device's turns, the newest first."""
        found = await moorline.transcript(caller.device_id, before=before, limit=limit + 1)
        turns = found[-limit:]
        return {
            "turns": [_turn(each) for each in reversed(turns)],
            "next": turns[0].record.turn_no if len(found) > limit else None,
            "as_of": found.as_of,
        }

    @routes.get("/session", response_model=SessionBody)
    async def session(caller: CallerOf) -> dict[str, Any]:
        """The session that the device has open, and the question that waits."""
        held = await moorline.session(caller.device_id)
        asked = await moorline.pending(caller.device_id)
        return {
            "agent": None if held is None else held.active_agent,
            "since": None if held is None else held.locked_at,
            "expires_at": None if held is None else held.expires_at,
            "pending": None if asked is None else asked.to_json(),
        }

    @routes.delete("/device", status_code=204, response_class=Response)
    async def erase_device(request: Request, caller: CallerOf) -> None:
        """Removes everything of the device, for good, and revokes its tokens. What it said in a conversation that it
        shares stays there without its name."""
        await moorline.erase(caller.device_id)
        request.state.moorline_caller = replace(caller, renewed_token=None)

    return routes


def _devices(signed: Signed, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/v1",
        tags=["device"],
        route_class=guard.route(guard.new_device),
        responses=problems(406, 429, 500, 503),
    )

    @routes.post("/devices", status_code=201, response_model=DeviceBody)
    async def new_device() -> dict[str, Any]:
        """A new device with a random ID, and its token. The token is good for 90 days; with one that is in use, answers
        bring a newer one from time to time, in the header `X-Device-Token`."""
        return asdict(await signed.new_device())

    return routes


def _health(moorline: Moorline, guard: Guard) -> APIRouter:
    async def anybody(_: Request) -> None: ...

    routes = APIRouter(tags=["health"], route_class=guard.route(anybody), responses=problems(406))

    @routes.get("/healthz", response_model=HealthBody)
    async def alive() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @routes.get("/readyz", response_model=HealthBody, responses=problems(500, 503))
    async def ready() -> dict[str, str]:
        """Whether messages can be answered: the process is not stopping, the database answers, and its schema fits."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                await moorline.check()
        except TimeoutError as error:
            raise StoreUnavailable(f"The database did not answer within {READY_SECONDS:g} s.") from error
        return {"status": "ready"}

    return routes


def _opening(moorline: Moorline, limits: RateLimits) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(limits.close)
            if not moorline.is_open:
                await stack.enter_async_context(moorline)
            yield

    return lifespan


async def _values(values: Values | None, request: Request, device_id: str) -> Mapping[str, Any]:
    found = {} if values is None else values(request, device_id)
    return await found if isawaitable(found) else found


def _said(message: TextMessage | FilesMessage | AnswerMessage) -> Said | Resume:
    match message:
        case TextMessage():
            return message.text
        case FilesMessage():
            return files.said(message)
        case AnswerMessage():
            return Resume(**message.resume.model_dump())
        case _:
            assert_never(message)


def _turn(entry: TranscriptEntry) -> dict[str, Any]:
    record = entry.record
    return {
        "turn_no": record.turn_no,
        "message_ids": entry.message_ids,
        "texts": entry.texts,
        "files": [[asdict(file) for file in each] for each in entry.files],
        "by": entry.by,
        "reply": record.reply,
        "agent": record.agent,
        "handoffs": record.handoffs,
        "interrupt": record.interrupt,
        "output": record.output,
        "started_at": entry.started_at,
        "committed_at": entry.committed_at,
        "rewound_at": entry.rewound_at,
    }
