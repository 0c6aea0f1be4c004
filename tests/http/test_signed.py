"""Signed device tokens: accepted is only what a key of the ring has signed, in time, and what is not revoked."""

import random
import string
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from moorline import Moorline
from moorline.http.tokens import KeyRing, Token

from .asking import asking, bearer, moorline_on

KEY = "a key of at least thirty-two characters"
OLD = "another key of at least thirty-two characters"
DAY = 86_400


@pytest.fixture
async def moorline(dsn: str) -> AsyncIterator[Moorline]:
    async with moorline_on(dsn) as opened:
        yield opened


@pytest.fixture
async def client(moorline: Moorline) -> AsyncIterator[httpx2.AsyncClient]:
    async with asking(moorline, device_auth="signed", token_keys=(KEY, OLD)) as asked:
        yield asked


async def new_device(client: httpx2.AsyncClient) -> tuple[str, str]:
    made = await client.post("/v1/devices")
    assert made.status_code == 201
    return made.json()["device_id"], made.json()["token"]


def signed(device: str, *, age: float = 0, generation: int = 0, key: str = KEY) -> str:
    token = Token(device_id=device, generation=generation, issued_at=int(time.time() - age))
    return KeyRing([key.encode()]).sign(token)


async def status(client: httpx2.AsyncClient, token: str, **headers: str) -> int:
    return (await client.get("/v1/session", headers=bearer(token) | headers)).status_code


async def test_a_device_is_who_its_token_says(client: httpx2.AsyncClient) -> None:
    (one, its), (_, other) = await new_device(client), await new_device(client)
    said = await client.post("/v1/messages", json={"text": "hello"}, headers=bearer(its))
    assert said.json()["turn_no"] == 1
    assert "X-Device-Token" not in said.headers
    assert len((await client.get("/v1/transcript", headers=bearer(its))).json()["turns"]) == 1
    assert (await client.get("/v1/transcript", headers=bearer(other))).json()["turns"] == []
    assert await status(client, its, **{"X-Device-ID": one.upper()}) == 200


@pytest.mark.parametrize("named", ["another", "", " ", "whatsapp:+49", "é"])
async def test_a_device_id_beside_a_token_must_agree(client: httpx2.AsyncClient, named: str) -> None:
    _, token = await new_device(client)
    headers = {b"Authorization": f"Bearer {token}".encode(), b"X-Device-ID": named.encode("latin-1")}
    assert (await client.get("/v1/session", headers=headers)).status_code == 401


async def test_of_two_device_ids_beside_a_token_both_must_agree(client: httpx2.AsyncClient) -> None:
    one, token = await new_device(client)
    named = [("Authorization", f"Bearer {token}"), ("X-Device-ID", one), ("X-Device-ID", "another")]
    assert (await client.get("/v1/session", headers=named)).status_code == 401


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "bearer m1", "Bearer m1..", "Bearer é", "Bearer m1.a.b.c"]
)
async def test_without_a_token_nobody_is_asking(client: httpx2.AsyncClient, header: str) -> None:
    refused = await client.get("/v1/session", headers={b"Authorization": header.encode("latin-1")})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json()["error"] == "Unidentified"
    named = await client.get("/v1/session", headers={"X-Device-ID": "d1"})
    assert named.status_code == 401


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (signed, 200),
        (lambda device: signed(device, age=89.9 * DAY), 200),
        (lambda device: signed(device, age=90.1 * DAY), 401),
        (lambda device: signed(device, age=-30), 200),
        (lambda device: signed(device, age=-120), 401),
        (lambda device: signed(device, key=OLD), 200),
        (lambda device: signed(device, key="a third key of thirty-two characters"), 401),
        (lambda device: signed(device)[:-1], 401),
        (lambda device: signed(device) + "A", 401),
        (lambda device: signed(device).swapcase(), 401),
        (lambda device: swapped(signed(device), signed("another")), 401),
    ],
    ids=[
        "fresh",
        "old",
        "expired",
        "slightly ahead",
        "future",
        "old key",
        "wrong key",
        "cut",
        "longer",
        "case",
        "swap",
    ],
)
async def test_a_token_is_accepted_only_as_it_was_signed_and_in_time(
    client: httpx2.AsyncClient, make: Callable[[str], str], expected: int
) -> None:
    device, _ = await new_device(client)
    assert await status(client, make(device)) == expected


def swapped(one: str, other: str) -> str:
    """What one token says, with the signature of the other."""
    return f"{one.rpartition('.')[0]}.{other.rpartition('.')[2]}"


async def test_a_token_in_use_is_renewed(client: httpx2.AsyncClient) -> None:
    device, _ = await new_device(client)
    answer = await client.post("/v1/messages", json={"text": "hello"}, headers=bearer(signed(device, age=2 * DAY)))
    renewed = answer.headers["X-Device-Token"]
    again = await client.get("/v1/transcript", headers=bearer(renewed))
    assert len(again.json()["turns"]) == 1
    assert "X-Device-Token" not in again.headers
    async with client.stream(
        "POST",
        "/v1/messages",
        json={"text": "hello"},
        headers=bearer(signed(device, age=2 * DAY)) | {"Accept": "text/event-stream"},
    ) as stream:
        assert stream.headers["X-Device-Token"]


async def test_a_revoked_token_stays_revoked_and_its_device_goes_on_with_a_new_one(
    client: httpx2.AsyncClient, moorline: Moorline
) -> None:
    device, token = await new_device(client)
    _, other = await new_device(client)
    renewed = (await client.get("/v1/session", headers=bearer(signed(device, age=2 * DAY)))).headers["X-Device-Token"]
    await moorline.revoke(device)
    assert [await status(client, each) for each in (token, renewed, other)] == [401, 401, 200]
    generation = (await moorline.revocations.accepted(device)).generation
    later = signed(device, generation=generation)
    assert await status(client, later) == 200
    await moorline.revoke(device)
    assert await status(client, later) == 401


async def test_an_erasure_leaves_nothing_of_the_device_and_its_tokens_stay_refused(
    client: httpx2.AsyncClient, moorline: Moorline
) -> None:
    device, token = await new_device(client)
    await client.post("/v1/messages", json={"text": "hello"}, headers=bearer(token))
    assert (await client.delete("/v1/device", headers=bearer(signed(device, age=2 * DAY)))).status_code == 204
    assert not await moorline.known(device)
    assert await status(client, token) == 401


async def test_another_key_in_front_signs_and_the_old_one_is_still_accepted(moorline: Moorline) -> None:
    async with asking(moorline, device_auth="signed", token_keys=(OLD,)) as client:
        device, token = await new_device(client)
    async with asking(moorline, device_auth="signed", token_keys=(KEY, OLD)) as client:
        assert await status(client, token) == 200
        renewed = (await client.get("/v1/session", headers=bearer(signed(device, age=2 * DAY, key=OLD)))).headers[
            "X-Device-Token"
        ]
    async with asking(moorline, device_auth="signed", token_keys=(KEY,)) as client:
        assert [await status(client, each) for each in (renewed, token)] == [200, 401]


async def test_without_keys_of_ones_own_all_processes_use_the_one_that_the_database_keeps(dsn: str) -> None:
    async with moorline_on(dsn) as one, moorline_on(dsn) as other:
        async with asking(one, device_auth="signed") as client:
            _, token = await new_device(client)
        async with asking(other, device_auth="signed") as client:
            assert await status(client, token) == 200


async def test_an_address_may_make_only_so_many_devices(moorline: Moorline) -> None:
    async with asking(moorline, device_auth="signed", rate_new_devices="3/hour") as client:
        made = [await client.post("/v1/devices") for _ in range(4)]
    assert [each.status_code for each in made] == [201, 201, 201, 429]
    assert 0 < int(made[-1].headers["Retry-After"]) <= 7200
    assert made[-1].json()["retryable"]


async def test_of_ten_thousand_bad_tokens_none_is_accepted(client: httpx2.AsyncClient, moorline: Moorline) -> None:
    chance = random.Random(7)  # noqa: S311 - the same tokens in every run
    device, token = await new_device(client)
    revoked, its = await new_device(client)
    await moorline.revoke(revoked)
    alphabet = string.ascii_letters + string.digits + "-_."

    def cut() -> int:
        return chance.randrange(len(token))

    def changed(at: int) -> str:
        return token[:at] + chance.choice(alphabet.replace(token[at], "")) + token[at + 1 :]

    bad: list[Callable[[], str]] = [
        lambda: token[: cut()],
        lambda: changed(cut()),
        lambda: token + chance.choice(alphabet),
        lambda: "".join(chance.choices(alphabet, k=chance.randrange(1, 200))),
        lambda: swapped(token, signed(f"d{chance.random()}")),
        lambda: signed(device, age=chance.uniform(90.01, 9000) * DAY),
        lambda: signed(device, age=-chance.uniform(61, 9e6)),
        lambda: signed(device, key="".join(chance.choices(alphabet, k=40))),
        lambda: its,
        lambda: signed(revoked, age=chance.uniform(0, 80) * DAY),
    ]
    found = [await status(client, chance.choice(bad)()) for _ in range(10_000)]
    assert set(found) == {401}
    assert await status(client, token) == 200
