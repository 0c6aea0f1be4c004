"""Everybody can use the page: with a keyboard, with a screen reader, on a small screen, in light and dark."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from tests.http.serving import Served
from tests.web.chromium import Chat, needs_chromium

pytestmark = needs_chromium

CONTRASTS = """
() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const colour = rgba(getComputedStyle(each).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255, 255];
    };
    const light = ([red, green, blue]) => [red, green, blue]
        .map(part => part / 255)
        .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const texts = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        const placeholder = element.matches("textarea");
        if ((!texts && !placeholder && !element.matches("svg")) || !element.checkVisibility()) continue;
        if (element.closest(".unseen, :disabled")) continue;
        const style = placeholder ? getComputedStyle(element, "::placeholder") : getComputedStyle(element);
        const [one, other] = [light(rgba(style.color)), light(behind(element))].sort((a, b) => b - a);
        found.push([`${element.tagName}.${element.className}`, (one + 0.05) / (other + 0.05)]);
    }
    return found;
}
"""
"""The contrast of every text that is shown, with what is behind it."""

SMALL = """
() => [...document.querySelectorAll("button, textarea")]
    .filter(each => each.checkVisibility())
    .map(each => [each.id || each.textContent, each.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44 || box.left < 0 || box.right > innerWidth)
    .map(([name]) => name)
"""
"""What a finger may miss."""


async def everything(chat: Chat) -> None:
    """Brings all on the page that it can show."""
    await chat.ask("see https://example.org, a word: " + "Donaudampfschifffahrtsgesellschaft" * 4)
    await chat.ask("use find_slots check_credit")
    await chat.say("x" * 100_001)
    await expect(chat.page.locator(".note.problem")).to_be_visible()
    await chat.ask("use confirm")
    await expect(chat.page.get_by_role("button", name="Another time")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_from_what_is_behind_it(browser: Browser, served: Served, scheme: str) -> None:
    context = await browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    chat = await Chat.open(context, served.url)
    await everything(chat)
    await chat.page.fill("#text", "so that there is something to send")
    background = await chat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    found = await chat.page.evaluate(CONTRASTS)
    assert len(found) > 20
    assert [(name, contrast) for name, contrast in found if contrast < 4.5] == []


async def test_a_screen_of_320_pixels_shows_everything_without_scrolling_sideways(
    browser: Browser, served: Served
) -> None:
    context = await browser.new_context(viewport={"width": 320, "height": 568}, has_touch=True, is_mobile=True)
    chat = await Chat.open(context, served.url)
    await chat.page.fill("#text", "hello")
    await chat.page.press("#text", "Enter")  # a phone's keyboard begins a new line
    assert await chat.page.input_value("#text") == "hello\n"
    await chat.page.tap("#send")
    await chat.reply()
    for said in ("Donaudampfschifffahrtsgesellschaft" * 4, "use find_slots check_credit", "use confirm"):
        await chat.page.evaluate("said => import('/device.js').then(device => device.send(said))", said)
    await chat.page.reload()
    await expect(chat.page.get_by_role("button", name="Another time")).to_be_in_viewport()
    await chat.page.fill("#text", "W" * 200)
    for part in ("html", "#scroll", "#composer"):
        assert await chat.page.locator(part).evaluate("part => part.scrollWidth <= part.clientWidth"), part
    assert await chat.page.evaluate(SMALL) == []
    assert float((await chat.page.locator("#text").evaluate("it => getComputedStyle(it).fontSize"))[:-2]) >= 16


async def test_the_page_can_be_zoomed_to_four_times_its_size(browser: Browser, served: Served) -> None:
    context = await browser.new_context(viewport={"width": 320, "height": 256})  # 1280 by 1024 at 400 %
    chat = await Chat.open(context, served.url)
    await chat.ask("hello")
    await expect(chat.page.locator(".text")).to_be_in_viewport()
    await expect(chat.page.locator("#text")).to_be_in_viewport()


async def test_it_is_used_with_the_keyboard_alone(chat: Chat) -> None:
    keyboard = chat.page.keyboard
    await expect(chat.page.locator("#text")).to_be_focused()
    await keyboard.type("use confirm")
    await keyboard.press("Shift+Enter")
    await keyboard.type("please")
    await keyboard.press("Enter")
    assert await chat.reply() == "Shall I book Tuesday, 10:00?"
    await expect(chat.page.locator("#text")).to_be_focused()
    await expect(chat.page.get_by_role("button", name="Attach files")).to_be_visible()
    for name in ("Attach files", "Another person", "Another time"):
        await keyboard.press("Shift+Tab")
        await expect(chat.page.get_by_role("button", name=name)).to_be_focused()
    assert await chat.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    await keyboard.press("Enter")
    assert await chat.reply(1) == '{"said": "Another time"}'
    await expect(chat.page.locator("#text")).to_be_focused()
    await keyboard.type("slowly 1 hello")
    await keyboard.press("Enter")
    await chat.writing(2)
    await keyboard.press("Tab")
    await expect(chat.page.get_by_role("button", name="Stop")).to_be_focused()
    await keyboard.press("Enter")
    await chat.reply(2)
    await expect(chat.page.locator("#text")).to_be_focused()


async def test_enter_that_ends_a_word_of_an_input_method_sends_nothing(chat: Chat) -> None:
    await chat.page.fill("#text", "に")
    await chat.page.locator("#text").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    await expect(chat.page.locator(".exchange")).to_have_count(0)
    await chat.page.press("#text", "Enter")
    assert await chat.reply() == "You said: に"


async def test_everything_has_a_role_and_a_name(chat: Chat) -> None:
    await everything(chat)
    page = chat.page
    await expect(page.get_by_role("banner")).to_be_visible()
    await expect(page.get_by_role("main").get_by_role("log", name="Messages")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    await expect(page.get_by_role("article")).to_have_count(4)
    await expect(page.get_by_role("list", name="Tools").get_by_role("listitem")).to_have_count(2)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Chat")
    nameless = await page.evaluate(
        "[...document.querySelectorAll('button, a, textarea')].filter(each => each.checkVisibility() &&"
        " !(each.ariaLabel || each.textContent).trim()).length"
    )
    assert nameless == 0
    assert await page.evaluate("document.documentElement.lang") == "en"
    snapshot = await page.get_by_role("log").aria_snapshot()
    assert 'button "Yes, book it"' in snapshot
    assert "You: use confirm" in snapshot


async def test_a_reply_is_announced_once_and_whole(chat: Chat) -> None:
    script = """
        () => {
            window.announced = [];
            const said = change => [...change.addedNodes].map(node => node.textContent);
            const hear = changes => announced.push(...changes.flatMap(said));
            const announcer = document.querySelector("#announcer");
            new MutationObserver(hear).observe(announcer, { childList: true, subtree: true });
        }
    """
    await chat.page.evaluate(script)
    await chat.ask("slowly 0.1 hello")
    await chat.ask("use confirm")
    assert await chat.page.evaluate("announced") == [
        "Front desk: You said: slowly 0.1 hello",
        "Front desk: Shall I book Tuesday, 10:00? Choose: Yes, book it, Another time, Another person.",
    ]
    announcer, log = chat.page.locator("#announcer"), chat.page.get_by_role("log")
    await expect(announcer).to_have_attribute("aria-live", "polite")
    await expect(log).to_have_attribute("aria-live", "off")  # the announcer speaks for it, a reply at a time


async def test_nothing_moves_for_who_wants_no_motion(browser: Browser, served: Served) -> None:
    chat = await Chat.open(await browser.new_context(reduced_motion="reduce"), served.url)
    await chat.say("use find_slots")
    await expect(chat.page.locator(".tools .running")).to_be_visible()
    assert await chat.page.evaluate("document.getAnimations().length") == 0
