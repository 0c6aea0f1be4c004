"""`device.js` on its own, against a real server: who a device is, and what is tried again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from moorline.http.tokens import KeyRing, Token
from tests.http.serving import PROGRAM, ROOT, Served, serving
from tests.web.app import ASKED
from tests.web.chromium import Chat, needs_chromium
from tests.web.conftest import APP, GENEROUS

pytestmark = needs_chromium

KEY = "a key of at least thirty-two characters"
DAY = 86_400
SIGNED = {"MOORLINE_DEVICE_AUTH": "signed", "MOORLINE_TOKEN_KEYS": KEY}


@pytest.fixture
def signed(dsn: str, tmp_path: Path) -> Iterator[Served]:
    asked = tmp_path / "asked"
    asked.touch()
    with serving(dsn, app=APP, **GENEROUS, **SIGNED, **{ASKED: str(asked)}) as server:
        yield server


async def run(page: Page, script: str) -> Any:
    """Runs the body of a function on the page; its `d` is the module, and what it throws is its result."""
    body = (
        f"async () => {{ const d = await import('/device.js'); try {{ {script} }} catch (e) {{ return {{...e}}; }} }}"
    )
    return await page.evaluate(body)


async def stored(page: Page) -> dict[str, str]:
    return dict(json.loads(await page.evaluate("localStorage['moorline.device']")))


async def test_a_signed_device_comes_from_the_server_and_is_kept_with_its_token(
    browser: Browser, signed: Served
) -> None:
    context = await browser.new_context()
    made: list[str] = []
    context.on("request", lambda request: made.append(request.url) if request.url.endswith("/v1/devices") else None)
    tabs = await asyncio.gather(*(Chat.open(context, signed.url) for _ in range(3)))
    assert len(set(await asyncio.gather(*(tab.device() for tab in tabs)))) == 1
    assert len(made) == 1
    chat = tabs[0]
    assert await chat.ask("hello") == "You said: hello"
    kept = await stored(chat.page)
    assert KeyRing([KEY.encode()]).read(kept["token"]).device_id == kept["id"] == await chat.device()
    await chat.page.reload()
    assert await chat.reply() == "You said: hello"
    assert await stored(chat.page) == kept


async def test_a_renewed_token_takes_the_place_of_the_old_one(browser: Browser, signed: Served) -> None:
    chat = await Chat.open(await browser.new_context(), signed.url)
    await chat.ask("hello")
    device = await chat.device()
    old = KeyRing([KEY.encode()]).sign(Token(device_id=device, generation=0, issued_at=int(time.time() - 2 * DAY)))
    await chat.page.evaluate(
        "device => { localStorage['moorline.device'] = device }", json.dumps({"id": device, "token": old})
    )
    await chat.ask("again")
    kept = await stored(chat.page)
    assert kept["id"] == device
    assert kept["token"] != old
    assert [turn["texts"] for turn in await chat.transcript()] == [["hello"], ["again"]]


async def test_who_may_no_longer_read_a_conversation_can_begin_a_new_one_with_what_they_wrote(
    browser: Browser, signed: Served, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = await Chat.open(await browser.new_context(), signed.url)
    await chat.ask("hello")
    device = await chat.device()
    monkeypatch.setenv("DATABASE_URL", dsn)
    await asyncio.to_thread(subprocess.run, [PROGRAM, "revoke", device], cwd=ROOT, check=True, capture_output=True)
    await asyncio.sleep(1.1)  # tokens of the same second are revoked with it
    await chat.say("still me")
    await expect(chat.page.locator(".note.problem")).to_have_text("This browser may no longer read this conversation.")
    await chat.page.reload()
    await chat.page.get_by_role("button", name="Start a new conversation").click()
    await expect(chat.page.get_by_text("How can we help?")).to_be_visible()
    assert await chat.device() != device
    await expect(chat.page.locator("#text")).to_have_value("still me")
    await chat.page.press("#text", "Enter")
    assert await chat.reply() == "You said: still me"


async def test_a_server_that_is_asked_too_often_is_asked_again_when_it_says(
    browser: Browser, dsn: str, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    asked.touch()
    with serving(dsn, app=APP, MOORLINE_RATE_DEVICE="3/second", **{ASKED: str(asked)}) as server:
        page = await (await browser.new_context()).new_page()
        await page.goto(server.url)
        many = "return Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(number => d.send(`message ${number}`)));"
        replies = await run(page, many)
    assert sorted(reply["text"] for reply in replies) == [f"You said: message {number}" for number in range(1, 9)]
    assert sorted(reply["turn_no"] for reply in replies) == list(range(1, 9))


async def test_a_message_has_one_id_until_its_reply_is_there(chat: Chat) -> None:
    script = """
        const giving = new AbortController();
        const events = d.stream("slowly once", { signal: giving.signal });
        for await (const event of events) if (event.type === "text_delta") giving.abort();
    """
    assert (await run(chat.page, f"{script} return 'finished';")) != "finished"
    (message,) = await run(chat.page, "return d.unanswered();")
    assert message["said"] == "slowly once"
    send = f"return d.send(d.unanswered()[0].said, {{ messageId: '{message['id']}' }});"
    reply = await run(chat.page, send)
    assert (reply["message_id"], reply["text"]) == (message["id"], "You said: slowly once")
    assert await run(chat.page, "return d.unanswered();") == []
    assert len(await chat.transcript()) == 1


async def test_what_cannot_be_answered_throws_and_is_not_kept(chat: Chat) -> None:
    problem = await run(chat.page, "return await d.send(' ');")
    assert (problem["name"], problem["kind"], problem["status"]) == ("MoorlineError", "InvalidRequest", 422)
    assert problem["retryable"] is False
    assert await run(chat.page, "return d.unanswered();") == []


async def test_people_who_sign_in_on_the_same_browser_do_not_send_each_others_messages(chat: Chat) -> None:
    people = """
        d.configure({ token: () => "ada's", person: "ada" });
        d.keep("hers", "m1");
        d.configure({ token: () => "bob's", person: "bob" });
        d.keep("his", "m2");
        return [d.unanswered().map(message => message.said), await d.ensureDeviceId()];
    """
    assert await run(chat.page, people) == [["his"], "bob"]


async def test_storage_that_holds_something_else_is_not_believed(context: BrowserContext, served: Served) -> None:
    await context.add_init_script("localStorage['moorline.device'] ??= '{not JSON'")
    await context.add_init_script("localStorage['moorline.message.x'] ??= '17'")
    chat = await Chat.open(context, served.url)
    assert await chat.ask("hello") == "You said: hello"
    assert chat.faults == []
