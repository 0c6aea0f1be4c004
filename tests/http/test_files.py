"""Files over HTTP: sent with a message, listed in the transcript, given back as downloads to their own device only."""

from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest

from moorline import Moorline, Settings
from moorline_agents.transport import ModelReply, rule_client
from tests.pictures import HTML, png

from .app import hair
from .asking import asking


def moorline_on(dsn: str, **settings: Any) -> Moorline:
    seen = ModelReply(text="seen")
    return Moorline(Settings(database_url=dsn, **settings), agents=[hair], client=lambda: rule_client(lambda _: seen))


HASH = sha256(png()).hexdigest()


def file(data: bytes, **more: str) -> dict[str, str]:
    return {"data": b64encode(data).decode(), **more}


def device(name: str) -> dict[str, str]:
    return {"X-Device-ID": name}


async def test_a_file_is_sent_listed_and_given_back_as_a_download(dsn: str) -> None:
    async with asking(moorline_on(dsn)) as client:
        body = {"text": "look", "files": [file(png(), name="arm.png", type="image/png")], "message_id": "m1"}
        answer = await client.post("/v1/messages", json=body, headers=device("d1"))
        assert answer.status_code == 200, answer.text
        odd = {"files": [file(png(), name='"\r\nX: y\0.html')]}
        assert (await client.post("/v1/messages", json=odd, headers=device("d3"))).status_code == 200
        named = (await client.get("/v1/transcript", headers=device("d3"))).json()["turns"][0]["files"][0][0]["name"]
        assert named == "X: y\\x00.html"
        (turn,) = (await client.get("/v1/transcript", headers=device("d1"))).json()["turns"]
        assert turn["texts"] == ["look"]
        assert turn["files"] == [[{"hash": HASH, "type": "image/png", "name": "arm.png", "size": 67}]]
        got = await client.get(f"/v1/files/{HASH}", headers=device("d1"))
        assert got.content == png()
        assert got.headers["Content-Type"] == "image/png"
        assert got.headers["Content-Disposition"] == f'attachment; filename="{HASH[:12]}.png"'
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in got.headers["Content-Security-Policy"]
        assert got.headers["Cache-Control"] == "no-store"
        as_picture = await client.get(f"/v1/files/{HASH}", headers={**device("d1"), "Accept": "image/png"})
        assert as_picture.status_code == 200
        for hashed, who in ((HASH, "d2"), ("0" * 64, "d1")):
            problem = await client.get(f"/v1/files/{hashed}", headers=device(who))
            assert (problem.status_code, problem.json()["error"]) == (404, "NotFound")
        assert (await client.get("/v1/files/..%2f..", headers=device("d1"))).status_code in (404, 422)
        await client.delete("/v1/device", headers=device("d1"))
        assert (await client.get(f"/v1/files/{HASH}", headers=device("d1"))).status_code == 404


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([file(HTML, type="text/plain")], "text/html"),
        ([file(png(), type="image/jpeg")], "not what it says"),
        ([{"data": "no base64!"}], "base64"),
        ([{"data": "AAAA", "url": "https://example.com"}], "url"),
        ([{"url": "http://example.com/a.png"}], "url"),
        ([{"url": "https://127.0.0.1/a.png"}], "public"),
        ([], "files"),
        ([file(b"a" * 20_000_001)], "MOORLINE_FILE_MAX"),
    ],
)
async def test_what_is_not_accepted_is_a_problem(dsn: str, files: list[Any], told: str) -> None:
    async with asking(moorline_on(dsn)) as client:
        answer = await client.post("/v1/messages", json={"files": files}, headers=device("d1"))
        assert answer.status_code == 422
        assert told in answer.json()["detail"]


async def test_a_body_has_room_for_the_files_that_are_allowed_and_no_more(dsn: str) -> None:
    bounds: dict[str, Any] = {"file_max": 3_000_000, "files_total_max": 3_000_000}
    async with asking(moorline_on(dsn, **bounds)) as client:
        fits = {"files": [file(png() + bytes(2_900_000))]}
        assert (await client.post("/v1/messages", json=fits, headers=device("d1"))).status_code == 200
        large = {"files": [file(png() + bytes(4_000_000))]}
        answer = await client.post("/v1/messages", json=large, headers=device("d1"))
        assert (answer.status_code, answer.json()["error"]) == (413, "BodyTooLarge")
        other = await client.post("/v1/link", json={"code": "a" * 2_000_000}, headers=device("d1"))
        assert other.status_code == 413
    async with asking(moorline_on(dsn), body_max=2_000) as client:
        assert (await client.post("/v1/messages", json=fits, headers=device("d1"))).status_code == 413
    async with asking(moorline_on(dsn, files_max=0)) as client:
        answer = await client.post("/v1/messages", json={"files": [file(png())]}, headers=device("d1"))
        assert "MOORLINE_FILES_MAX" in answer.json()["detail"]


async def test_a_client_is_told_what_is_accepted_before_it_sends_anything(dsn: str) -> None:
    bounds = {"file_max": 3_000_000, "files_max": 2, "files_total_max": 4_000_000}
    async with asking(moorline_on(dsn, file_types="image/jpeg,text/plain", **bounds)) as client:
        told = (await client.get("/v1/limits", headers=device("d1"))).json()
        assert told == bounds | {"file_types": ["image/jpeg", "text/plain"]}
        assert (await client.get("/v1/limits")).status_code == 400
    async with asking(moorline_on(dsn, **bounds), body_max=3_000) as client:
        told = (await client.get("/v1/limits", headers=device("d1"))).json()
        assert (told["file_max"], told["files_total_max"]) == (2_250, 2_250)
