"""Devices are linked over HTTP, and no answer names another device."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from moorline import Moorline
from moorline_checkpoint.people import MOST_TRIES

from .asking import asking, bearer, moorline_on


@pytest.fixture
async def moorline(dsn: str) -> AsyncIterator[Moorline]:
    async with moorline_on(dsn) as opened:
        yield opened


@pytest.fixture
async def client(moorline: Moorline) -> AsyncIterator[httpx2.AsyncClient]:
    async with asking(moorline, device_auth="signed") as asked:
        yield asked


class Device:
    """A device with a token of its own."""

    def __init__(self, client: httpx2.AsyncClient, made: dict[str, str]) -> None:
        self.id = made["device_id"]
        self._client, self._headers = client, bearer(made["token"])

    @classmethod
    async def new(cls, client: httpx2.AsyncClient) -> "Device":
        return cls(client, (await client.post("/v1/devices")).json())

    async def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        return await self._client.request(method, f"/v1/{path}", json=body, headers=self._headers)

    async def texts(self) -> list[str]:
        return [turn["texts"][0] for turn in (await self.ask("GET", "transcript")).json()["turns"]]


async def linked(one: Device, other: Device) -> httpx2.Response:
    code = (await one.ask("POST", "link-codes")).json()["code"]
    return await other.ask("POST", "link", {"code": code})


async def test_two_devices_are_linked_and_unlinked_without_naming_each_other(client: httpx2.AsyncClient) -> None:
    one, other = await Device.new(client), await Device.new(client)
    await one.ask("POST", "messages", {"text": "hello"})
    made = await one.ask("POST", "link-codes")
    assert (made.status_code, made.json()["expires_in"]) == (201, 600)
    joined = await other.ask("POST", "link", {"code": made.json()["code"]})
    assert joined.status_code == 200
    assert await other.texts() == ["hello"]
    told = await one.ask("POST", "messages", {"text": "and now"})
    assert "joined" in told.json()["notice"]
    listed = await one.ask("GET", "devices")
    assert [each["this"] for each in listed.json()["devices"]] == [True, False]
    for answer in (joined, listed, told):
        assert one.id not in answer.text
        assert other.id not in answer.text
    assert (await other.ask("DELETE", "link")).json() == {"unlinked": True}
    assert (await other.ask("DELETE", "link")).json() == {"unlinked": False}
    assert await other.texts() == []
    assert len((await one.ask("GET", "devices")).json()["devices"]) == 1


async def test_a_devices_own_token_does_not_erase_the_person(client: httpx2.AsyncClient) -> None:
    one, other = await Device.new(client), await Device.new(client)
    await one.ask("POST", "messages", {"text": "hello"})
    await linked(one, other)
    await other.ask("POST", "messages", {"text": "and now"})
    assert (await other.ask("DELETE", "device")).status_code == 204
    assert (await other.ask("GET", "transcript")).status_code == 401
    assert await one.texts() == ["and now", "hello"]


async def test_codes_that_are_wrong_are_problems(client: httpx2.AsyncClient) -> None:
    one, other = await Device.new(client), await Device.new(client)
    for body, status, error in (
        ({"code": "0000-0000"}, 404, "LinkRefused"),
        ({"code": "no code"}, 404, "LinkRefused"),
        ({"code": ""}, 422, "InvalidRequest"),
        ({"code": "0" * 33}, 422, "InvalidRequest"),
        ({"code": "0000-0000", "device_id": one.id}, 422, "InvalidRequest"),
        ({}, 422, "InvalidRequest"),
    ):
        refused = await other.ask("POST", "link", body)
        assert (refused.status_code, refused.json()["error"]) == (status, error)
    assert (await linked(other, other)).json()["error"] == "AlreadyLinked"
    assert (await linked(one, other)).status_code == 200
    circle = await linked(other, one)
    assert (circle.status_code, circle.json()["error"]) == (409, "AlreadyLinked")


async def test_wrong_codes_are_counted_by_the_address_that_sends_them(client: httpx2.AsyncClient) -> None:
    one, tried = await Device.new(client), 0
    while tried < MOST_TRIES["address"]:
        guessing = await Device.new(client)
        for _ in range(MOST_TRIES["device"]):
            assert (await guessing.ask("POST", "link", {"code": "0000-0000"})).status_code == 404
            tried += 1
    refused = await linked(one, await Device.new(client))
    assert (refused.status_code, refused.json()["error"]) == (429, "TooManyTries")
    assert 3000 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.json()["retryable"]


async def test_a_path_names_all_of_its_methods(client: httpx2.AsyncClient) -> None:
    for path, methods in (("link", "DELETE, POST"), ("devices", "GET, POST"), ("transcript", "GET")):
        refused = await client.options(f"/v1/{path}")
        assert (refused.status_code, refused.headers["Allow"]) == (405, methods)
