"""Reloads, lost connections, other tabs, a killed server, a page that may store nothing: one turn, one reply."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, expect

from tests.http.serving import Served, serving
from tests.web.app import ASKED
from tests.web.chromium import Chat, needs_chromium, without_storage
from tests.web.conftest import APP, GENEROUS

pytestmark = needs_chromium


def times(asked: Path, text: str) -> int:
    """How often the model was asked to answer this."""
    return asked.read_text(encoding="utf-8").splitlines().count(text)


async def reloaded(browser: Browser, served: Served, number: int) -> Chat:
    """A page that was reloaded somewhere in the middle of an answer, when the answer is whole."""
    chat = await Chat.open(await browser.new_context(), served.url)
    await chat.say(f"slowly 0.3 reload {number}")
    await chat.writing()
    await asyncio.sleep(random.uniform(0, 1))  # noqa: S311 - any moment
    await chat.page.reload()
    await chat.reply()
    return chat


@pytest.mark.parametrize("batch", [0, *(pytest.param(batch, marks=pytest.mark.laboratory) for batch in range(1, 5))])
async def test_a_reload_in_mid_answer_leaves_one_turn_and_one_reply(
    browser: Browser, served: Served, asked: Path, batch: int
) -> None:
    numbers = range(4 * batch, 4 * batch + 4)
    for number, chat in zip(
        numbers, await asyncio.gather(*(reloaded(browser, served, number) for number in numbers)), strict=True
    ):
        said = f"slowly 0.3 reload {number}"
        assert await chat.exchanges() == [(said, f"You said: {said}")]
        (turn,) = await chat.transcript()
        assert (turn["turn_no"], turn["texts"], turn["reply"]) == (1, [said], f"You said: {said}")
        assert times(asked, said) == 1
        assert await chat.kept() == []
        assert chat.faults == []


async def test_what_a_tool_did_before_a_reload_is_done_once(chat: Chat, asked: Path) -> None:
    device = await chat.device()
    await chat.say("use pay find_slots")
    await expect(chat.page.locator(".tools .running", has_text="find slots")).to_be_visible()
    await chat.page.reload()
    assert "paid" in await chat.reply()
    assert times(asked, f"paid for {device}") == 1
    assert len(await chat.transcript()) == 1


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.laboratory)])
async def test_a_message_written_offline_is_sent_when_the_device_is_back(
    chat: Chat, context: BrowserContext, asked: Path, seconds: float
) -> None:
    await chat.ask("hello")
    await context.set_offline(True)
    said = f"written offline for {seconds} seconds by {await chat.device()}"
    await chat.say(said)
    await expect(chat.page.get_by_text("You are offline. What you write is sent when you are back.")).to_be_visible()
    await asyncio.sleep(seconds)
    await expect(chat.page.locator(".exchange").nth(1)).not_to_have_attribute("data-state", "failed")
    await context.set_offline(False)
    assert await chat.reply(1) == f"You said: {said}"
    assert times(asked, said) == 1
    assert len(await chat.transcript()) == 2


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.laboratory)])
async def test_going_offline_in_mid_answer_leaves_one_turn_and_one_reply(
    chat: Chat, context: BrowserContext, asked: Path, seconds: float
) -> None:
    said = f"slowly for {seconds} seconds {await chat.device()}"
    await chat.say(said)
    await chat.writing()
    await context.set_offline(True)
    await expect(chat.page.locator(".note")).to_have_text("You are offline. This goes on when you are back.")
    await asyncio.sleep(seconds)
    await context.set_offline(False)
    assert await chat.reply() == f"You said: {said}"
    assert await chat.exchanges() == [(said, f"You said: {said}")]
    assert times(asked, said) == 1
    assert len(await chat.transcript()) == 1


async def test_a_page_that_is_opened_offline_after_a_message_was_written_sends_it(
    chat: Chat, context: BrowserContext, served: Served
) -> None:
    await chat.ask("hello")
    await context.set_offline(True)
    await chat.say("before the tab was closed")
    await chat.page.close()
    await context.set_offline(False)
    again = await Chat.open(context, served.url)
    assert await again.reply(1) == "You said: before the tab was closed"
    assert len(await again.transcript()) == 2


async def test_two_tabs_that_open_at_once_are_one_device(browser: Browser, served: Served) -> None:
    for _ in range(5):
        context = await browser.new_context()
        tabs = await asyncio.gather(*(Chat.open(context, served.url) for _ in range(3)))
        assert len(set(await asyncio.gather(*(tab.device() for tab in tabs)))) == 1
        await context.close()


async def test_another_tab_shows_a_message_and_its_reply_as_they_come(
    chat: Chat, context: BrowserContext, served: Served, asked: Path
) -> None:
    await chat.ask("hello")
    other = await Chat.open(context, served.url)
    assert await other.reply() == "You said: hello"
    said = f"slowly to both of {await chat.device()}"
    await chat.say(said)
    await other.writing(1)
    for tab in (chat, other):
        await tab.reply(1)
        assert await tab.exchanges() == [("hello", "You said: hello"), (said, f"You said: {said}")]
    assert times(asked, said) == 1
    assert other.faults == []


async def test_a_tab_that_is_closed_in_mid_answer_leaves_its_message_to_the_other(
    chat: Chat, context: BrowserContext, served: Served, asked: Path
) -> None:
    await chat.ask("hello")
    other = await Chat.open(context, served.url)
    said = f"slowly, and closed, by {await chat.device()}"
    await chat.say(said)
    await other.writing(1)
    await chat.page.close()
    await other.reply(1)
    assert await other.exchanges() == [("hello", "You said: hello"), (said, f"You said: {said}")]
    assert times(asked, said) == 1
    assert len(await other.transcript()) == 2
    assert await other.kept() == []


async def test_both_tabs_answering_a_question_answer_it_once(
    chat: Chat, context: BrowserContext, served: Served
) -> None:
    await chat.ask("use confirm")
    other = await Chat.open(context, served.url)
    buttons = [tab.page.get_by_role("button", name="Another time") for tab in (chat, other)]
    for button in buttons:
        await expect(button).to_be_visible()
    await asyncio.gather(*(button.evaluate("button => button.click()") for button in buttons))
    for tab in (chat, other):
        assert await tab.reply(1) == '{"said": "Another time"}'
        assert len(await tab.exchanges()) == 2
    assert len(await chat.transcript()) == 2


async def test_a_page_that_may_store_nothing_works_while_it_is_open(served: Served, tmp_path: Path) -> None:
    async with without_storage(tmp_path) as context:
        chat = await Chat.open(context, served.url)
        refused = "() => { try { return String(localStorage); } catch (error) { return error.name; } }"
        assert await chat.page.evaluate(refused) == "SecurityError"
        device = await chat.device()
        assert await chat.ask("hello") == "You said: hello"
        assert await chat.ask("again") == "You said: again"
        assert await chat.device() == device
        assert [turn["turn_no"] for turn in await chat.transcript()] == [1, 2]
        assert chat.faults == []


async def test_without_local_storage_the_device_is_kept_in_a_cookie(context: BrowserContext, served: Served) -> None:
    await context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    chat = await Chat.open(context, served.url)
    await chat.ask("hello")
    device = await chat.device()
    await chat.page.reload()
    assert await chat.reply() == "You said: hello"
    assert await chat.device() == device
    (cookie,) = await context.cookies()
    assert (cookie["name"], cookie["sameSite"]) == ("moorline.device", "Lax")


async def test_a_server_that_is_killed_in_mid_answer_leaves_one_turn_and_one_reply(
    browser: Browser, dsn: str, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    asked.touch()
    settings = {**GENEROUS, ASKED: str(asked)}
    with serving(dsn, app=APP, **settings) as first:
        port = str(first.port)
        chat = await Chat.open(await browser.new_context(), first.url)
        await chat.say("use pay find_slots")
        await expect(chat.page.locator(".tools .running", has_text="find slots")).to_be_visible()
        first.process.kill()
    await expect(chat.page.locator(".note")).to_have_text("The connection was lost. Trying again …")
    with serving(dsn, "--port", port, app=APP, **settings):
        await expect(chat.page.locator(".exchange")).to_have_attribute("data-state", "done", timeout=60_000)
        (turn,) = await chat.transcript()
        assert await chat.exchanges() == [("use pay find_slots", turn["reply"])]
        assert times(asked, f"paid for {await chat.device()}") == 1
        assert chat.faults == []
