"""Files that come as addresses: over https, from public addresses only, within bounds, and never twice."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import httpx2
import pytest
import respx

from moorline import File, Image, InvalidMessage, Settings
from moorline.errors import FileUnavailable
from moorline.file_links import Fetcher, Room, is_public
from moorline.testing import Script
from tests.pictures import HTML, JPEG, png
from tests.runtime.test_files import HERE, looking, opened, rows

PUBLIC = "93.184.215.14"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),  # noqa: S104
        *("100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "224.0.1.1"),
        *("239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1"),
        *("fd12::1", "ff02::1", "ff0e::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::1", "2002:a00:1::", "2001::1", "::7f00:1"),
        *("::ffff:0:7f00:1", "5f00::1", "3fff::1", "192.88.99.1", "2001:20::1"),
        "64:ff9b:1:a00:0:100:808:808",  # 10.0.0.1, where a prefix of 48 bits has it
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names resolve to, each time that they are asked for; any other name is unknown."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith(".example"):
            if name not in known:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            found = known[name].pop(0) if len(known[name]) > 1 else known[name][0]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


async def test_a_picture_is_fetched_once_and_shown(
    settings: Settings, dsn: str, names: dict[str, list[list[str]]]
) -> None:
    names["pics.example"] = [[PUBLIC]]
    picture = Image(url="https://pics.example/a%20cat.png?size=1")
    with respx.mock(assert_all_called=False) as web:
        fetched = web.get(f"https://{PUBLIC}/a%20cat.png?size=1").respond(content=png())
        async with opened(settings, Script(rules=looking)) as m:
            reply = await m.run(["Look", picture], {**HERE, "message_id": "m1"})
            assert "data:image/png;base64," in reply
            again = await m.run(["Look", picture], {**HERE, "message_id": "m1"})
            assert (again, again.replayed) == (reply, True)
            assert (await m.transcript("d1"))[0].files[0][0].name == "a cat.png"
    (call,) = fetched.calls
    assert call.request.headers["Host"] == "pics.example"
    assert call.request.extensions["sni_hostname"] == "pics.example"


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    return await fetcher.fetch(url, Room(10_000_000))


@pytest.mark.parametrize(
    "url",
    [
        *("http://pics.example/a.png", "ftp://pics.example/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA"),
        *(
            "https://user:word@pics.example/a.png",
            "https:///a.png",
            "https://",
            "pics.example/a.png",
            "",
            "https://[::1",
        ),
        *("https://127.0.0.1/a.png", "https://[::1]/a.png", "https://169.254.169.254/latest", "https://2130706433/"),
        *("https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/", "https://[::ffff:7f00:1]/", "https://[::]/"),
        *("https://inside.example/a.png", "https://both.example/a.png", "https://localhost/a.png"),
    ],
)
async def test_addresses_that_are_never_asked(url: str, names: dict[str, list[list[str]]]) -> None:
    names |= {"pics.example": [[PUBLIC]], "inside.example": [["10.0.0.8"]], "both.example": [[PUBLIC, "10.0.0.8"]]}
    with respx.mock() as web:
        with pytest.raises(InvalidMessage):
            await fetched(Fetcher(largest=100, seconds=5), url)
        assert not web.calls


async def test_a_name_in_other_letters_is_looked_up_as_it_is_asked_for(names: dict[str, list[list[str]]]) -> None:
    names |= {"xn--fa-hia.example": [[PUBLIC]], "fass.example": [["10.0.0.8"]]}
    with respx.mock() as web:
        web.get(f"https://{PUBLIC}/").respond(content=JPEG)
        assert await fetched(Fetcher(largest=1000, seconds=5), "https://faß.example/") == JPEG
        (call,) = web.calls
    assert call.request.headers["Host"] == call.request.extensions["sni_hostname"] == "xn--fa-hia.example"


async def test_each_redirect_is_checked_and_there_are_few(names: dict[str, list[list[str]]]) -> None:
    names |= {"pics.example": [[PUBLIC]], "inside.example": [["192.168.0.1"]]}
    fetcher = Fetcher(largest=1000, seconds=5)
    with respx.mock(assert_all_called=False) as web:
        for number in range(6):
            web.get(f"https://{PUBLIC}/{number}").respond(302, headers={"Location": f"/{number + 1}"})
        web.get(f"https://{PUBLIC}/6").respond(content=JPEG)
        assert await fetched(fetcher, "https://pics.example/3") == JPEG
        with pytest.raises(InvalidMessage, match="more than 3 times"):
            await fetched(fetcher, "https://pics.example/2")
        for target in ("https://inside.example/", "http://pics.example/6", "https://127.0.0.1/", "//inside.example/"):
            web.get(f"https://{PUBLIC}/away").respond(301, headers={"Location": target})
            with pytest.raises(InvalidMessage):
                await fetched(fetcher, "https://pics.example/away")


async def test_a_name_that_changes_its_mind_is_connected_where_it_was_checked(
    names: dict[str, list[list[str]]],
) -> None:
    names["rebinds.example"] = [[PUBLIC], ["127.0.0.1"]]
    with respx.mock() as web:
        web.get(f"https://{PUBLIC}/").respond(content=JPEG)
        assert await fetched(Fetcher(largest=1000, seconds=5), "https://rebinds.example/") == JPEG
        with pytest.raises(InvalidMessage):
            await fetched(Fetcher(largest=1000, seconds=5), "https://rebinds.example/")


async def test_what_cannot_be_had_now_may_be_had_later(names: dict[str, list[list[str]]]) -> None:
    names["pics.example"] = [[PUBLIC]]
    fetcher = Fetcher(largest=100, seconds=0.2)

    async def never(_: Any) -> Any:
        await asyncio.sleep(60)

    with respx.mock() as web:
        page = web.get(f"https://{PUBLIC}/")
        for status, error in (
            (500, FileUnavailable),
            (429, FileUnavailable),
            (404, InvalidMessage),
            (204, InvalidMessage),
            (302, InvalidMessage),  # to nowhere
            (304, InvalidMessage),
        ):
            page.respond(status)
            with pytest.raises(error) as caught:
                await fetched(fetcher, "https://pics.example/")
            assert caught.value.retryable == (error is FileUnavailable)
        failures: list[Any] = [httpx2.ConnectError("refused"), httpx2.ReadTimeout("slow"), never]
        for failure in failures:
            page.mock(side_effect=failure)
            with pytest.raises(FileUnavailable):
                await fetched(fetcher, "https://pics.example/")
        with pytest.raises(FileUnavailable):
            await fetched(fetcher, "https://unknown.example/")


async def test_a_file_at_an_address_that_is_not_what_it_says_is_refused(
    settings: Settings, dsn: str, names: dict[str, list[list[str]]]
) -> None:
    names["pics.example"] = [[PUBLIC]]
    with respx.mock() as web:
        web.get(f"https://{PUBLIC}/a.png").respond(content=HTML, content_type="image/png")
        async with opened(settings, Script()) as m:
            for file in (Image(url="https://pics.example/a.png"), File(url="https://pics.example/a.png")):
                with pytest.raises(InvalidMessage):
                    await m.run([file], HERE)
    assert await rows(dsn, "SELECT 1 FROM conversation_messages UNION ALL SELECT 1 FROM conversation_files") == []


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tls_server(folder: Path, serve: Serve) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """A server on this machine with a certificate for pics.example, its port, and who trusts it."""
    openssl = which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and it is not there")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ("-subj", "/CN=pics.example", "-addext", "subjectAltName=DNS:pics.example")
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    made = await asyncio.create_subprocess_exec(
        openssl, *new, *subject, "-keyout", str(key), "-out", str(certificate), stderr=asyncio.subprocess.DEVNULL
    )
    assert await made.wait() == 0
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(certificate, key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=own)
    async with server:
        yield server.sockets[0].getsockname()[1], ssl.create_default_context(cafile=str(certificate))


async def test_a_real_server_is_known_by_its_certificate_and_read_no_further_than_allowed(
    tmp_path: Path, names: dict[str, list[list[str]]]
) -> None:
    names |= {"pics.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Host: pics.example:" in asked
        slow, endless = "GET /slow" in asked, "GET /endless" in asked
        told = len(JPEG) + (1 if "GET /cut" in asked else 0)
        length = b"" if endless else b"Content-Length: %d\r\n" % told
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n")
        try:
            while slow:  # each byte in time, the whole never
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
            while endless:
                writer.write(bytes(10_000))
                await writer.drain()
                sent += 10_000
            writer.write(JPEG)
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async with tls_server(tmp_path, serve) as (port, trusting):
        fetcher = Fetcher(largest=100_000, seconds=10, may_reach=lambda _: True, tls=trusting)
        assert await fetched(fetcher, f"https://pics.example:{port}/a.jpg") == JPEG
        with pytest.raises(InvalidMessage, match="more than 100,000 bytes"):
            await fetched(fetcher, f"https://pics.example:{port}/endless")
        assert sent < 10_000_000
        with pytest.raises(FileUnavailable):  # a byte is missing
            await fetched(fetcher, f"https://pics.example:{port}/cut")
        with pytest.raises(FileUnavailable, match=r"within 0.3 s"):
            await fetched(replace(fetcher, seconds=0.3), f"https://pics.example:{port}/slow")
        with pytest.raises(FileUnavailable):  # the certificate is another one's
            await fetched(fetcher, f"https://other.example:{port}/a.jpg")


async def test_files_at_several_addresses_have_room_together(
    settings: Settings, names: dict[str, list[list[str]]]
) -> None:
    names["pics.example"] = [[PUBLIC]]
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        yield png()
        for _ in range(9):
            read += 100_000
            yield bytes(100_000)
            await asyncio.sleep(0)

    bounds = settings.model_copy(update={"file_max": 1_000_000, "files_total_max": 1_500_000})
    with respx.mock() as web:
        answer: Any = lambda _: httpx2.Response(200, content=pieces())  # noqa: E731
        web.get(host=PUBLIC).mock(side_effect=answer)
        async with opened(bounds, Script(rules=looking)) as m:
            await m.run([Image(url="https://pics.example/0")], HERE)
            with pytest.raises(InvalidMessage, match="MOORLINE_FILES_TOTAL_MAX"):
                await m.run([File(png()), *(Image(url=f"https://pics.example/{each}") for each in range(8))], HERE)
    assert read < 900_000 + 2 * 1_500_000


async def test_a_name_server_that_never_answers_keeps_nothing_else_from_its_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(30) and [])
    fetcher = Fetcher(largest=100, seconds=0.2)
    try:
        asked = (fetched(fetcher, f"https://{each}.example/") for each in range(60))
        refused = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in refused} == {FileUnavailable}
        assert sum(thread.name.startswith("moorline-lookup") for thread in threading.enumerate()) <= 8
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "at once"), 5) == "at once"
    finally:
        answered.set()
