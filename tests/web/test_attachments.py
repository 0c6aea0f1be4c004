"""Pictures and files on the page: chosen, pasted and dropped, sent once, shown again, and given back as downloads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, FilePayload, Locator, expect

from tests.http.serving import Served
from tests.pictures import HTML, PDF, SVG, png
from tests.web.chromium import Chat, needs_chromium
from tests.web.test_access import CONTRASTS, SMALL
from tests.web.test_nothing_lost import times

pytestmark = needs_chromium

NO_DATABASE = "Object.defineProperty(window, 'indexedDB', { get() { throw new DOMException('no', 'SecurityError'); } })"
GIVE = """
(element, [kind, name, type, data, others]) => {
    const given = new DataTransfer();
    given.items.add(new File([Uint8Array.from(data)], name, { type }));
    for (const [other, value] of Object.entries(others)) given.items.add(value, other);
    const how = { bubbles: true, cancelable: true, clipboardData: given, dataTransfer: given };
    const event = kind === "paste" ? new ClipboardEvent(kind, how) : new DragEvent(kind, how);
    return element.dispatchEvent(event);
}
"""
"""Pastes or drops a file, with texts of other types beside it; gives whether the browser goes on with it."""


def file(name: str, data: bytes, kind: str = "image/png") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def photo(name: str = "arm.png", colour: int = 0) -> FilePayload:
    return file(name, png(colour))


async def attach(chat: Chat, *files: FilePayload) -> None:
    async with chat.page.expect_file_chooser() as choosing:
        await chat.page.get_by_role("button", name="Attach files").click()
    await (await choosing.value).set_files(list(files))


async def give(chat: Chat, kind: str, name: str, data: bytes, media: str, **others: str) -> bool:
    return bool(await chat.page.locator("#text").evaluate(GIVE, [kind, name, media, list(data), others]))


def attached(chat: Chat) -> Locator:
    return chat.page.get_by_role("list", name="Files to send").get_by_role("listitem")


def sent(chat: Chat) -> Locator:
    return chat.page.get_by_role("list", name="Your files").get_by_role("button")


async def is_shown(picture: Locator) -> None:
    """Waits until a picture is decoded: it has pixels."""
    await picture.scroll_into_view_if_needed()
    await expect(picture).to_have_js_property("naturalWidth", 1)


async def saved(chat: Chat, name: str) -> tuple[str, bytes]:
    """What the file with this name is saved as, and what is in it."""
    async with chat.page.expect_download() as downloading:
        await chat.page.get_by_role("button", name=f"Download {name}").click()
    download = await downloading.value
    return download.suggested_filename, await asyncio.to_thread(Path(await download.path()).read_bytes)


async def files_kept(chat: Chat) -> int:
    """Of how many messages the browser keeps files."""
    script = """
        new Promise(resolve => {
            const request = indexedDB.open("moorline", 1);
            request.onupgradeneeded = () => request.result.createObjectStore("files");
            request.onsuccess = () => {
                const all = request.result.transaction("files").objectStore("files").count();
                all.onsuccess = () => resolve(all.result);
            };
        })
    """
    return int(await chat.page.evaluate(script))


@pytest.fixture
async def strict(context: BrowserContext, served: Served) -> AsyncIterator[Chat]:
    """The page of a server that accepts little."""
    limits = {"file_max": 1_500, "files_max": 2, "files_total_max": 2_000, "file_types": ["image/png", "text/plain"]}
    await context.route("**/v1/limits", lambda route: route.fulfill(json=limits))
    chat = await Chat.open(context, served.url)
    await chat.page.get_by_role("button", name="Attach files").wait_for()
    yield chat
    assert chat.faults == []


async def test_a_picture_is_chosen_sent_seen_by_the_model_and_shown_again_after_a_reload(chat: Chat) -> None:
    await attach(chat, photo(), file("referral.pdf", PDF, "application/pdf"))
    await expect(attached(chat)).to_contain_text(["arm.png", "referral.pdf"])
    await is_shown(attached(chat).locator("img"))
    assert await chat.ask("look") == "You said: look I see 1."
    await expect(attached(chat)).to_have_count(0)
    for _ in range(2):
        await is_shown(sent(chat).locator("img"))
        await expect(sent(chat).nth(1)).to_have_text("referral.pdf")
        assert await saved(chat, "referral.pdf") == ("referral.pdf", PDF)
        assert await saved(chat, "arm.png") == ("arm.png", png())
        await chat.page.reload()
        await chat.reply()
    (turn,) = await chat.transcript()
    assert [(each["name"], each["type"]) for each in turn["files"][0]] == [
        ("arm.png", "image/png"),
        ("referral.pdf", "application/pdf"),
    ]
    assert await files_kept(chat) == 0


async def test_a_message_may_be_a_file_alone_and_a_question_waits_on(chat: Chat) -> None:
    await chat.ask("use name")
    await attach(chat, photo())
    await chat.page.get_by_role("button", name="Send").click()
    assert "I see 1." in await chat.reply(1)
    await expect(chat.page.locator(".exchange").nth(1).locator(".bubble")).to_have_count(0)


async def test_a_picture_is_pasted_or_dropped_and_the_page_stays(chat: Chat) -> None:
    await chat.page.get_by_role("button", name="Attach files").wait_for()
    assert not await give(chat, "paste", "image.png", png(), "image/png")
    assert not await give(chat, "drop", "dropped.png", png(1), "image/png")
    await expect(attached(chat)).to_contain_text(["image.png", "dropped.png"])
    text = {"text/plain": "a, b", "text/html": "<td>a<td>b"}
    assert await give(chat, "paste", "image.png", png(2), "image/png", **text)  # a table's picture: its text is meant
    await expect(attached(chat)).to_have_count(2)
    missed = chat.page.locator("body")
    assert not await missed.evaluate(GIVE, ["dragover", "x.png", "image/png", [1], {}])
    await expect(chat.page.locator("body")).to_have_class("dropping")
    assert not await missed.evaluate(GIVE, ["drop", "missed.png", "image/png", list(png(3)), {}])
    await expect(attached(chat)).to_have_count(3)
    assert await chat.ask("look") == "You said: look I see 3."


async def test_what_the_server_would_refuse_is_told_before_it_is_sent(strict: Chat) -> None:
    problem = strict.page.get_by_role("alert")
    for given, told in (
        (file("film.mp4", b"x", "video/mp4"), "film.mp4 cannot be sent. What can be sent: PNG, text."),
        (file("drawing.svg", SVG, "image/svg+xml"), "drawing.svg cannot be sent. What can be sent: PNG, text."),
        (file("large.png", bytes(30_000)), "large.png is too large: it has 0.03 MB, and 0.01 MB can be sent."),
        (file("empty.png", b""), "empty.png is empty."),
    ):
        await attach(strict, given)
        await expect(problem).to_have_text(told)
        await expect(attached(strict)).to_have_count(0)
    await attach(strict, file("a.txt", b"a" * 1_200, "text/plain"), file("b.txt", b"b" * 1_200, "text/plain"))
    await expect(problem).to_contain_text("b.txt was not attached: the files of a message can have")
    await attach(strict, photo("c.png"), photo("d.png"))
    await expect(problem).to_have_text("d.png was not attached: a message can have 2 files. Send it with the next one.")
    await expect(attached(strict)).to_contain_text(["a.txt", "c.png"])
    await strict.page.get_by_role("button", name="Remove a.txt").click()
    await expect(problem).to_be_hidden()
    assert await strict.ask("look") == "You said: look I see 1."


async def test_what_only_the_server_can_know_is_told_in_words_and_the_files_come_back(chat: Chat) -> None:
    await attach(chat, photo(), file("page.txt", HTML, "text/plain"))
    await chat.say("look")
    problem = chat.page.locator(".note.problem")
    await expect(problem).to_contain_text("File 2 is of a type that is not accepted, text/html. These are: app")
    await expect(problem).not_to_contain_text("MOORLINE")
    await chat.page.get_by_role("button", name="Change the message").click()
    await expect(chat.page.locator("#text")).to_have_value("look")
    await chat.page.get_by_role("button", name="Remove page.txt").click()
    await chat.page.press("#text", "Enter")
    assert await chat.reply() == "You said: look I see 1."


async def test_a_server_that_takes_no_files_offers_none(context: BrowserContext, served: Served) -> None:
    limits = {"file_max": 1, "files_max": 0, "files_total_max": 1, "file_types": ["image/png"]}
    await context.route("**/v1/limits", lambda route: route.fulfill(json=limits))
    chat = await Chat.open(context, served.url)
    assert await chat.ask("hello") == "You said: hello"
    await expect(chat.page.locator("#files")).to_have_attribute("accept", "image/png")
    await expect(chat.page.get_by_role("button", name="Attach files")).to_be_hidden()
    assert not await give(chat, "drop", "a.png", png(), "image/png")
    await expect(chat.page.get_by_role("alert")).to_have_text("Files cannot be sent here: a.png was not attached.")


async def test_a_reload_in_mid_answer_sends_the_same_message_with_its_files(chat: Chat, asked: Path) -> None:
    said = f"slowly look at {await chat.device()}"
    await attach(chat, photo())
    posted: list[Any] = []
    chat.page.on("request", lambda each: posted.append(each.post_data_json) if "/messages" in each.url else None)
    await chat.say(said)
    await chat.writing()
    assert await files_kept(chat) == 1
    await chat.page.reload()
    assert await chat.reply() == f"You said: {said} I see 1."
    await is_shown(sent(chat).locator("img"))
    assert posted[0] == posted[-1]
    assert len(posted) == 2
    assert posted[0]["files"][0]["name"] == "arm.png"
    assert times(asked, said) == 1
    (turn,) = await chat.transcript()
    assert len(turn["files"][0]) == 1
    assert (await chat.kept(), await files_kept(chat)) == ([], 0)


async def test_files_that_were_attached_offline_are_sent_by_the_next_page(
    chat: Chat, context: BrowserContext, served: Served
) -> None:
    await chat.ask("hello")
    await chat.page.get_by_role("button", name="Attach files").wait_for()
    await context.set_offline(True)
    await attach(chat, photo())
    await chat.say("look")
    await is_shown(sent(chat).locator("img"))
    await chat.page.close()
    await context.set_offline(False)
    again = await Chat.open(context, served.url)
    assert await again.reply(1) == "You said: look I see 1."
    assert await files_kept(again) == 0
    assert again.faults == []


async def test_files_for_which_a_browser_has_no_room_are_sent_and_never_lost_in_silence(
    context: BrowserContext, served: Served
) -> None:
    await context.add_init_script(NO_DATABASE)
    chat = await Chat.open(context, served.url)
    await attach(chat, photo())
    assert await chat.ask("look") == "You said: look I see 1."
    await attach(chat, photo("leg.png", 1))
    await context.set_offline(True)
    await chat.say("and this")
    await chat.page.close()
    await context.set_offline(False)
    for _ in range(2):  # it is told until the person has decided
        chat = await Chat.open(context, served.url)
        told = "This browser no longer has leg.png. Attach it again."
        await expect(chat.page.locator(".note.problem")).to_have_text(told)
    await chat.page.get_by_role("button", name="Change the message").click()
    await expect(chat.page.locator("#text")).to_have_value("and this")
    await attach(chat, photo("leg.png", 1))
    await chat.page.press("#text", "Enter")
    assert await chat.reply(1) == "You said: and this I see 1."
    assert len(await chat.transcript()) == 2
    assert chat.faults == []


async def test_another_tab_shows_the_files_and_sends_them_if_the_first_is_closed(
    chat: Chat, context: BrowserContext, served: Served, asked: Path
) -> None:
    await chat.ask("hello")
    other = await Chat.open(context, served.url)
    said = f"slowly, with a picture, by {await chat.device()}"
    await attach(chat, photo())
    await chat.say(said)
    await other.writing(1)
    await is_shown(sent(other).locator("img"))
    await chat.page.close()
    assert await other.reply(1) == f"You said: {said} I see 1."
    assert times(asked, said) == 1
    assert (await other.kept(), await files_kept(other)) == ([], 0)
    assert other.faults == []


async def test_what_is_no_picture_is_a_download_whatever_it_is_called(chat: Chat) -> None:
    """A text that is called like a page, and one like a picture."""
    await chat.page.get_by_role("button", name="Attach files").wait_for()
    await give(chat, "drop", "page.html", b"plain words", "text/html")
    await give(chat, "drop", "words.png", b"more words", "image/png")
    await chat.ask("look")
    for _ in range(2):
        await expect(sent(chat)).to_have_text(["page.html", "words.png"])
        await expect(sent(chat).locator("img")).to_have_count(0)
        await chat.page.reload()
        await chat.reply()
    assert await saved(chat, "page.html") == ("page.html.txt", b"plain words")
    assert await saved(chat, "words.png") == ("words.png.txt", b"more words")


async def test_a_file_that_is_gone_says_so(chat: Chat, context: BrowserContext) -> None:
    await attach(chat, file("a.txt", b"words", "text/plain"))
    await chat.ask("look")
    await chat.page.reload()
    await chat.reply()
    await context.route("**/v1/files/*", lambda route: route.fulfill(status=404, json={"retryable": False}))
    await sent(chat).click()
    await expect(chat.page.get_by_role("alert")).to_have_text("It is no longer kept.")


async def test_files_are_attached_and_removed_with_the_keyboard_and_told_to_who_hears_the_page(chat: Chat) -> None:
    await attach(chat, photo("a.png"), photo("b.png", 1))
    await expect(chat.page.locator("#announcer")).to_contain_text("Attached: a.png, b.png")
    await chat.page.get_by_role("button", name="Remove a.png").focus()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.locator("#announcer")).to_contain_text("Removed: a.png")
    await expect(chat.page.get_by_role("button", name="Remove b.png")).to_be_focused()
    await chat.page.keyboard.press("Enter")
    await expect(chat.page.get_by_role("button", name="Attach files")).to_be_focused()
    await expect(chat.page.get_by_role("button", name="Send")).to_be_disabled()
    await chat.page.keyboard.press("Tab")
    await expect(chat.page.locator("#text")).to_be_focused()


async def test_files_fit_on_a_small_screen_and_stand_out(browser: Browser, served: Served) -> None:
    chat = await Chat.open(await browser.new_context(viewport={"width": 320, "height": 568}), served.url)
    long = "Donaudampfschifffahrtsgesellschaft" * 4
    some = (photo(), photo("leg.png", 1), file(f"{long}.pdf", PDF, "application/pdf"))
    await attach(chat, *some)
    await chat.page.fill("#text", "look")
    await chat.page.get_by_role("button", name="Send").click()
    await chat.reply()
    await attach(chat, *some, file("film.mp4", b"x", "video/mp4"))
    await expect(chat.page.get_by_role("alert")).to_be_visible()
    for part in ("html", "#scroll", "#composer", "#attached"):
        assert await chat.page.locator(part).evaluate("part => part.scrollWidth <= part.clientWidth"), part
    assert await chat.page.evaluate(SMALL) == []
    for dark in (False, True):
        await chat.page.emulate_media(color_scheme="dark" if dark else "light")
        assert [(name, found) for name, found in await chat.page.evaluate(CONTRASTS) if found < 4.5] == []
    assert chat.faults == []


async def test_pictures_are_fetched_when_they_come_into_view(chat: Chat) -> None:
    await attach(chat, photo())
    await chat.ask("look")
    script = (
        "async () => { const { send } = await import('/device.js'); for (const each of [1, 2]) await send(`${each}`); }"
    )
    await chat.page.evaluate(script)
    await chat.page.set_viewport_size({"width": 400, "height": 260})
    fetched: list[str] = []
    chat.page.on("request", lambda each: fetched.append(each.url) if "/v1/files/" in each.url else None)
    await chat.page.reload()
    await chat.reply(2)
    await asyncio.sleep(0.3)
    assert fetched == []
    await is_shown(sent(chat).locator("img"))
    assert len(fetched) == 1
