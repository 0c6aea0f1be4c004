"""The router in an app of one's own: its lifespan, its prefix, verified values, and whom it believes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from starlette.requests import Request

from moorline import Agent, Moorline, Settings, ToolContext, tool
from moorline.http import HttpSettings, router
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from .asking import moorline_on

D1 = {"X-Device-ID": "d1"}


@asynccontextmanager
async def mounted(app: FastAPI, client: str = "127.0.0.1") -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app, client=(client, 50000))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=D1) as asked,
    ):
        yield asked


def app_with(moorline: Moorline, prefix: str = "", **options: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(router(moorline, **options), prefix=prefix)
    return app


async def test_the_apps_lifespan_is_the_moorlines(dsn: str) -> None:
    moorline = moorline_on(dsn)
    async with mounted(app_with(moorline, "/chat")) as client:
        said = await client.post("/chat/v1/messages", json={"text": "hello"})
        assert said.json()["text"] == "You said: hello"
        assert (await client.get("/chat/readyz")).json() == {"status": "ready"}
        refused = await client.post("/chat/v1/messages", json={})
        assert refused.headers["content-type"] == "application/problem+json"
        assert moorline.is_open
    assert not moorline.is_open


async def test_a_moorline_that_is_open_stays_open(dsn: str) -> None:
    async with moorline_on(dsn) as moorline:
        async with mounted(app_with(moorline)) as client:
            assert (await client.get("/readyz")).status_code == 200
        assert await moorline.run("hello", {"device_id": "d1"})


class Nothing(BaseModel):
    pass


@tool(effect="none")
async def who(arguments: Nothing, context: ToolContext) -> dict[str, Any]:
    """Who asks."""
    return dict(context.values)


def asks_who(request: ModelRequest) -> ModelReply:
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
    if request.messages[-1]["role"] == "tool":
        return ModelReply(text=str(request.messages[-1]["content"]))
    return ModelReply(calls=(Call(name="who", arguments={}),))


async def verified(request: Request, device_id: str) -> dict[str, Any]:
    if "X-Banned" in request.headers:
        raise HTTPException(403, "not you")
    return {"customer": request.headers["X-Customer"], "of": device_id}


async def test_only_the_server_gives_a_turn_its_values(dsn: str) -> None:
    desk = Agent(name="desk", description="all", instructions="Say who asks.", tools=[who])
    moorline = Moorline(Settings(database_url=dsn), agents=[desk], client=lambda: rule_client(asks_who))
    async with mounted(app_with(moorline, values=verified)) as client:
        said = await client.post("/v1/messages", json={"text": "who?"}, headers={"X-Customer": "7"})
        banned = await client.post("/v1/messages", json={"text": "who?"}, headers={"X-Banned": "yes"})
        failed = await client.post("/v1/messages", json={"text": "who?"})
    assert json.loads(said.json()["text"]) == {"customer": "7", "of": "d1"}
    assert (banned.status_code, banned.json()["error"], banned.json()["detail"]) == (403, "Forbidden", "not you")
    assert (failed.status_code, failed.json()["error"]) == (500, "InternalError")
    assert "X-Customer" not in failed.text


@pytest.mark.parametrize(
    ("client", "headers", "device_auth", "status"),
    [
        ("127.0.0.1", {}, None, 200),
        ("::1", {}, None, 200),
        ("192.0.2.7", {}, None, 401),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, None, 401),
        ("127.0.0.1", {"Forwarded": "for=192.0.2.7"}, None, 401),
        ("127.0.0.1", {"Host": "somebody.example"}, None, 401),
        ("192.0.2.7", {}, "none", 200),
    ],
)
async def test_a_bare_device_id_is_believed_from_this_machine_only_unless_that_was_chosen(
    dsn: str, client: str, headers: dict[str, str], device_auth: Any, status: int
) -> None:
    async with mounted(app_with(moorline_on(dsn), device_auth=device_auth), client) as asked:
        assert (await asked.get("/v1/session", headers=headers)).status_code == status


async def test_the_argument_goes_before_the_environment(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORLINE_DEVICE_AUTH", "signed")
    async with mounted(app_with(moorline_on(dsn))) as client:
        assert (await client.get("/v1/session")).status_code == 401
    async with mounted(app_with(moorline_on(dsn), device_auth="none")) as client:
        assert (await client.get("/v1/session")).status_code == 200


async def test_two_routers_of_one_app_have_settings_of_their_own(dsn: str) -> None:
    app = FastAPI()
    moorline = moorline_on(dsn)
    app.include_router(router(moorline, settings=HttpSettings(rate_device="1/minute")), prefix="/slow")
    app.include_router(router(moorline), prefix="/fast")
    async with mounted(app) as client:
        slow = [(await client.get("/slow/v1/session")).status_code for _ in range(2)]
        fast = [(await client.get("/fast/v1/session")).status_code for _ in range(2)]
    assert (slow, fast) == ([200, 429], [200, 200])
