"""Bad input: every error is a problem that says what to do, and nothing of it reaches a conversation."""

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from moorline import Moorline
from moorline.http.problems import STATUSES

from .asking import asking, moorline_on
from .serving import ROOT, Served, serving

HELLO = {"text": "hello"}

CLASS = re.compile("`([A-Z][A-Za-z]+)`")


@pytest.fixture(scope="module")
def served(module_dsn: str) -> Iterator[Served]:
    bounds = {"MOORLINE_BODY_MAX": "1048576", "MOORLINE_BODY_TIMEOUT": "1", "MOORLINE_TURN_TIMEOUT": "5"}
    with serving(module_dsn, MOORLINE_CHANNELS="whatsapp", **bounds) as it:
        yield it


@pytest.fixture
async def moorline(dsn: str) -> AsyncIterator[Moorline]:
    async with moorline_on(dsn, channels={"whatsapp"}) as opened:
        yield opened


@pytest.fixture
async def client(moorline: Moorline) -> AsyncIterator[httpx2.AsyncClient]:
    async with asking(moorline, headers={"X-Device-ID": "d1"}) as asked:
        yield asked


def problem(answer: httpx2.Response, status: int, error: str) -> dict[str, object]:
    """The problem that the answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    told: dict[str, object] = answer.json()
    assert set(told) == {*("type", "title", "status", "detail", "error", "retryable", "message_id", "effects_kept")}
    assert (told["type"], told["status"], told["error"]) == (f"urn:moorline:{error}", status, error)
    assert told["detail"]
    return told


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 422, "InvalidRequest"),
        (b"{", 400, "BadRequest"),
        (b'{"text": "\xff"}', 400, "BadRequest"),
        (b"[" * 100_000, 400, "BadRequest"),
        (b'{"text": "hi", "message_id": ' + b"9" * 6_000 + b"}", 400, "BadRequest"),
        (b"null", 422, "InvalidRequest"),
        (b'"text"', 422, "InvalidRequest"),
        (b"{}", 422, "InvalidRequest"),
        (b'{"text": null}', 422, "InvalidRequest"),
        (b'{"text": " \\n "}', 422, "InvalidRequest"),
        (b'{"text": "hi", "device_id": "d2"}', 422, "InvalidRequest"),
        (b'{"text": "hi", "resume": {"interrupt_id": "i", "value": 1}}', 422, "InvalidRequest"),
        (b'{"text": "hi", "message_id": " "}', 422, "InvalidRequest"),
        (b'{"text": "hi", "message_id": "resume:1"}', 400, "InvalidContext"),
        (b'{"resume": {"interrupt_id": "i", "value": NaN}}', 422, "InvalidMessage"),
        (b'{"resume": {"interrupt_id": "i", "value": 1, "by": "Eva"}}', 422, "InvalidRequest"),
        (b'{"resume": {"interrupt_id": "i", "value": 1}}', 409, "NothingWaits"),
        (json.dumps({"text": "x" * 100_001}).encode(), 422, "InvalidRequest"),
    ],
)
async def test_a_body_that_is_no_message_is_refused(
    client: httpx2.AsyncClient, moorline: Moorline, body: bytes, status: int, error: str
) -> None:
    json_body = {"Content-Type": "application/json"}
    for accept in ("*/*", "text/event-stream"):
        answer = await client.post("/v1/messages", content=body, headers=json_body | {"Accept": accept})
        assert not problem(answer, status, error)["retryable"]
    assert not await moorline.known("d1")


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"text": " "}, "body.text: String should match pattern '\\S'."),
        ({"resume": {"value": 1}}, "body.resume.interrupt_id: Field required."),
        ({}, "body.text: Field required."),
        ({"text": "hi", "extra": 1}, "body.extra: Extra inputs are not permitted."),
    ],
)
async def test_a_fault_is_told_where_the_client_wrote_it(
    client: httpx2.AsyncClient, body: dict[str, Any], detail: str
) -> None:
    answer = await client.post("/v1/messages", json=body)
    assert problem(answer, 422, "InvalidRequest")["detail"] == detail


async def test_a_body_that_does_not_say_that_it_is_json_is_not_read_as_json(client: httpx2.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await client.post("/v1/messages", content=json.dumps(HELLO), headers={"Content-Type": kind})
        problem(answer, 422, "InvalidRequest")


@pytest.mark.parametrize(
    ("device", "status"),
    [(None, 400), ("", 400), (" ", 400), ("a b", 400), ("é", 400), ("x" * 129, 400), ("whatsapp:+4915112345", 400)],
)
async def test_a_device_id_that_cannot_be_used_is_refused_everywhere(
    moorline: Moorline, device: str | None, status: int
) -> None:
    headers = {} if device is None else {b"X-Device-ID": device.encode("latin-1")}
    async with asking(moorline) as client:
        for method, path in [
            ("POST", "/v1/messages"),
            ("GET", "/v1/transcript"),
            ("GET", "/v1/session"),
            ("DELETE", "/v1/device"),
        ]:
            answer = await client.request(method, path, headers=headers, json=HELLO if method == "POST" else None)
            problem(answer, status, "InvalidDeviceID")


async def test_a_request_that_names_two_devices_is_neither(moorline: Moorline) -> None:
    async with asking(moorline) as client:
        twice = [(b"X-Device-ID", b"d1"), (b"X-Device-ID", b"d2")]
        problem(await client.get("/v1/session", headers=twice), 400, "InvalidDeviceID")
        problem(await client.get("/v1/session", headers=twice[::-1]), 400, "InvalidDeviceID")
        assert (await client.get("/v1/session", headers=[twice[0], twice[0]])).status_code == 200


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json", "application/json"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0, */*;q=0.1", "application/json"),
        ("text/html, text/*;q=0.2", "text/event-stream"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("application/json;q=x", None),
    ],
)
async def test_the_answer_has_the_type_that_is_preferred(
    client: httpx2.AsyncClient, accept: str, kind: str | None
) -> None:
    answer = await client.post("/v1/messages", json=HELLO, headers={"Accept": accept})
    if kind is None:
        problem(answer, 406, "NotAcceptable")
    else:
        assert answer.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/nothing", None),
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/device", "DELETE"),
        ("TRACE", "/v1/session", "GET"),
    ],
)
async def test_what_is_not_there_is_a_problem(
    client: httpx2.AsyncClient, method: str, path: str, allowed: str | None
) -> None:
    answer = await client.request(method, path)
    status, error = (404, "NotFound") if allowed is None else (405, "MethodNotAllowed")
    problem(answer, status, error)
    assert answer.headers.get("allow") == allowed


@pytest.mark.parametrize("query", ["before=0", "before=x", "limit=0", "limit=101", f"before={2**63}", "limit=9" * 9])
async def test_a_page_that_cannot_be_is_refused(client: httpx2.AsyncClient, query: str) -> None:
    problem(await client.get(f"/v1/transcript?{query}"), 422, "InvalidRequest")


async def test_a_turn_that_takes_too_long_says_with_which_id_it_goes_on(dsn: str) -> None:
    late = {"text": "in 2 seconds", "message_id": "m1"}
    async with (
        moorline_on(dsn, turn_timeout=0.5) as moorline,
        asking(moorline, headers={"X-Device-ID": "d1"}) as client,
    ):
        told = problem(await client.post("/v1/messages", json=late), 504, "TurnTimeout")
    assert (told["retryable"], told["message_id"]) == (True, "m1")


async def test_a_server_that_failed_says_so_and_not_why(client: httpx2.AsyncClient, moorline: Moorline) -> None:
    await moorline.close()
    told = problem(await client.post("/v1/messages", json=HELLO), 503, "UsageError")
    assert told["retryable"]
    assert "async with" not in str(told["detail"])
    problem(await client.get("/readyz"), 503, "UsageError")
    assert (await client.get("/healthz")).status_code == 200


async def test_a_device_or_an_address_that_asks_too_often_waits(moorline: Moorline) -> None:
    async with asking(moorline, rate_device="2/minute", rate_address="5/minute") as client:
        mine = [await client.get("/v1/session", headers={"X-Device-ID": "d1"}) for _ in range(3)]
        other = await client.get("/v1/session", headers={"X-Device-ID": "d2"})
        last = [await client.get("/v1/session", headers={"X-Device-ID": f"d{n}"}) for n in range(3, 6)]
        healthy = await client.get("/healthz")
    assert [each.status_code for each in mine] == [200, 200, 429]
    assert "device" in str(problem(mine[-1], 429, "TooManyRequests")["detail"])
    assert other.status_code == 200
    assert [each.status_code for each in last] == [200, 429, 429]
    assert "address" in str(problem(last[-1], 429, "TooManyRequests")["detail"])
    assert 1 <= int(last[-1].headers["Retry-After"]) <= 120
    assert healthy.status_code == 200


async def test_a_full_queue_and_a_busy_device_say_when_to_come_again(dsn: str) -> None:
    async with (
        moorline_on(dsn, on_busy="reject") as moorline,
        asking(moorline, headers={"X-Device-ID": "d1"}) as client,
    ):
        running = asyncio.create_task(client.post("/v1/messages", json={"text": "in 1 seconds"}))
        await asyncio.sleep(0.5)
        told = await client.post("/v1/messages", json=HELLO)
        assert problem(told, 409, "SessionBusy")["retryable"]
        assert int(told.headers["Retry-After"]) >= 1
        assert (await running).status_code == 200


def answer_to(served: Served, sent: bytes) -> bytes:
    """What the server answers to bytes that no client would send, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(*fields: str) -> bytes:
    lines = ("POST /v1/messages HTTP/1.1", "Host: localhost", "X-Device-ID: cut", "Content-Type: application/json")
    return "\r\n".join([*lines, *fields, "", ""]).encode()


def test_a_body_of_ten_megabytes_is_refused_and_its_sender_learns_why(served: Served) -> None:
    huge = b'{"text": "' + b"x" * 10_000_000 + b'"}'
    with served.client() as client:
        for content in (huge, iter([huge[:5_000_000], huge[5_000_000:]])):
            answer = client.post("/v1/messages", content=content, headers={"Content-Type": "application/json"})
            problem(answer, 413, "BodyTooLarge")
        assert client.post("/v1/messages", json=HELLO).status_code == 200


def test_a_sender_that_first_sends_everything_learns_it_too(served: Served) -> None:
    answer = answer_to(served, head("Content-Length: 10000000") + b" " * 10_000_000)
    assert b"HTTP/1.1 413" in answer
    assert b"BodyTooLarge" in answer


def test_a_body_that_comes_too_slowly_is_given_up(served: Served) -> None:
    begun = time.monotonic()
    answer = answer_to(served, head("Content-Length: 100") + b'{"text": ')
    assert b"HTTP/1.1 408" in answer
    assert b"BodyTooSlow" in answer
    assert 0.9 < time.monotonic() - begun < 10


def test_a_body_that_is_cut_off_reaches_no_conversation(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head("Content-Length: 16") + b'{"text": "hel')
    with served.client("cut") as client:
        time.sleep(0.2)
        assert client.get("/v1/transcript").json()["turns"] == []
        assert client.post("/v1/messages", json=HELLO).status_code == 200
    assert "Traceback" not in served.said


def test_the_documentation_has_every_error_with_its_status() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (.*?) \|", (ROOT / "docs" / "http.md").read_text(), re.MULTILINE)
    documented = {
        (int(status), name)
        for statuses, names in rows
        for status in statuses.split(", ")
        for name in CLASS.findall(names)
    }
    assert {(status, kind.__name__) for kind, status in STATUSES.items()} <= documented
