"""The chat page in a real Chromium: it shows what a turn does, and nothing that is not so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.http.serving import Served
from tests.web.chromium import Chat, needs_chromium

pytestmark = needs_chromium


async def test_a_message_is_answered_and_both_are_there_after_a_reload(chat: Chat) -> None:
    await expect(chat.page.get_by_text("How can we help?")).to_be_visible()
    assert await chat.ask("hello") == "You said: hello"
    await expect(chat.page.get_by_text("How can we help?")).to_be_hidden()
    assert await chat.kept() == []
    await chat.page.reload()
    await chat.reply()
    assert await chat.exchanges() == [("hello", "You said: hello")]
    assert [(turn["texts"], turn["reply"]) for turn in await chat.transcript()] == [(["hello"], "You said: hello")]


async def test_the_reply_is_shown_while_it_is_written(chat: Chat) -> None:
    await chat.say("slowly hello")
    await chat.writing()
    assert "You said: slowly hello".startswith(await chat.page.locator(".text").inner_text())
    assert await chat.reply() == "You said: slowly hello"


async def test_it_shows_who_answers_which_tool_runs_and_withdraws_what_is_withdrawn(chat: Chat) -> None:
    await chat.say("use find_slots check_credit")
    await expect(chat.page.locator(".name")).to_have_text("Front desk")
    running = chat.page.locator(".tools .running", has_text="find slots")
    await expect(running).to_be_visible()
    await expect(chat.page.locator(".text")).to_have_text("")
    reply = await chat.reply()
    assert "Let me see" not in reply
    assert "10:00" in reply
    await expect(chat.page.locator(".tools .done")).to_have_text("find slots, done")
    await expect(chat.page.locator(".tools .refused")).to_have_text("check credit, refused")
    await expect(chat.page.locator("#holder")).to_have_text("with Front desk")


async def test_a_hand_over_shows_the_agent_that_answers(chat: Chat) -> None:
    assert await chat.ask("please hand over") == "You said: please hand over"
    await expect(chat.page.locator(".name")).to_have_text("Orders")
    await expect(chat.page.locator(".tools li")).to_have_count(0)
    await expect(chat.page.locator("#holder")).to_have_text("with Orders")


async def test_a_question_has_a_button_for_each_option(chat: Chat) -> None:
    assert await chat.ask("use confirm") == "Shall I book Tuesday, 10:00?"
    options = chat.page.get_by_role("group", name="Answers").get_by_role("button")
    await expect(options).to_have_text(["Yes, book it", "Another time", "Another person"])
    await options.nth(2).click()
    assert await chat.reply(1) == '{"said": {"person": 2}}'
    await expect(options).to_have_count(0)
    await chat.page.reload()
    await chat.reply(1)
    assert [said for said, _ in await chat.exchanges()] == ["use confirm", "Another person"]
    await expect(options).to_have_count(0)


async def test_a_question_waits_for_its_answer_over_a_reload_and_typing_an_option_answers_it(chat: Chat) -> None:
    await chat.ask("use confirm")
    await chat.page.reload()
    await expect(chat.page.get_by_role("button", name="Another time")).to_be_visible()
    assert await chat.ask("yes, BOOK it") == '{"said": "Yes, book it"}'


async def test_something_else_than_an_option_closes_the_question(chat: Chat) -> None:
    await chat.ask("use confirm")
    assert await chat.ask("what does it cost?") == "You said: what does it cost?"
    await expect(chat.page.get_by_role("button", name="Another time")).to_have_count(0)


async def test_a_question_without_options_is_answered_in_words(chat: Chat) -> None:
    assert await chat.ask("use name") == "What is your name?"
    assert await chat.ask("Ada") == '{"said": "Ada"}'


async def test_stop_ends_the_turn_with_what_there_is(chat: Chat) -> None:
    await chat.say("slowly 2 hello")
    await chat.writing()
    await chat.page.get_by_role("button", name="Stop").click()
    reply = await chat.reply()
    assert reply != "You said: slowly 2 hello"
    await expect(chat.page.locator(".note")).to_have_text("Stopped")
    await expect(chat.page.get_by_role("button", name="Stop")).to_be_hidden()
    assert [turn["reply"] for turn in await chat.transcript()] == [reply]
    assert await chat.ask("and now?") == "You said: and now?"


async def test_what_is_written_while_a_turn_runs_is_sent_after_it(chat: Chat) -> None:
    await chat.say("slowly first")
    await chat.say("second")
    await chat.reply(1)
    assert await chat.exchanges() == [("slowly first", "You said: slowly first"), ("second", "You said: second")]
    assert [turn["texts"] for turn in await chat.transcript()] == [["slowly first"], ["second"]]


async def test_a_failed_turn_can_be_tried_again_and_what_was_done_is_done_once(chat: Chat, asked: Path) -> None:
    device = await chat.device()
    await chat.say(f"fail {device}")
    again = chat.page.get_by_role("button", name="Try again")
    await expect(again).to_be_visible(timeout=40_000)
    await expect(chat.page.locator(".note")).to_have_text("The assistant does not answer at the moment.")
    (kept,) = await chat.kept()
    await again.click()
    assert await chat.reply() == f"You said: fail {device}"
    (turn,) = await chat.transcript()
    assert kept.endswith(turn["message_ids"][0])
    assert await chat.kept() == []


async def test_a_message_that_is_refused_can_be_changed(chat: Chat) -> None:
    await chat.ask("hello")
    await chat.say("x" * 100_001)
    await expect(chat.page.locator(".note.problem")).to_have_text("This message cannot be sent. It may be too long.")
    await expect(chat.page.get_by_role("button", name="Try again")).to_have_count(0)
    await chat.page.get_by_role("button", name="Change the message").click()
    await expect(chat.page.locator(".exchange")).to_have_count(1)
    assert len(await chat.page.input_value("#text")) == 100_001
    assert await chat.kept() == []


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=document.title='broken'>",
        "<script>document.title='broken'</script> <b>bold</b>",
        "javascript:document.title='broken' data:text/html,x",
        "\u202egnirts\u202c {{1+1}} ${1}",
    ],
)
async def test_what_people_and_models_write_is_text(chat: Chat, text: str) -> None:
    assert await chat.ask(text) == f"You said: {text}"
    await chat.page.reload()
    await chat.reply()
    assert await chat.exchanges() == [(text, f"You said: {text}")]
    assert await chat.page.locator(".exchange :is(img, script, b, a)").count() == 0
    assert await chat.page.title() == "Chat"


async def test_addresses_of_the_web_are_links_that_know_nothing_of_the_page(chat: Chat) -> None:
    await chat.ask("see https://example.org/a_(b)?c=1, (http://example.net). And ftp://example.com")
    links = chat.page.locator(".text a")
    found = await links.evaluate_all("all => all.map(a => [a.href, a.rel, a.target])")
    assert found == [
        ["https://example.org/a_(b)?c=1", "noopener noreferrer", "_blank"],
        ["http://example.net/", "noopener noreferrer", "_blank"],
    ]


async def test_a_long_conversation_is_shown_from_its_end_and_the_rest_as_one_scrolls_up(chat: Chat) -> None:
    script = """
        async () => {
            const { send } = await import("/device.js");
            for (let number = 1; number <= 45; number++) await send(`message ${number}`);
        }
    """
    await chat.page.evaluate(script)
    await chat.page.reload()
    await expect(chat.page.locator(".exchange")).to_have_count(20)
    await expect(chat.page.get_by_text("You said: message 45", exact=True)).to_be_in_viewport()
    for shown, first in ((40, "message 26"), (45, "message 6")):
        seen = chat.page.locator(".bubble", has_text=re.compile(f"{first}$"))
        await chat.page.locator("#scroll").evaluate("scroll => { scroll.scrollTop = 0; }")
        await expect(chat.page.locator(".exchange")).to_have_count(shown)
        await expect(seen).to_be_in_viewport()
    assert [said for said, _ in await chat.exchanges()] == [f"message {number}" for number in range(1, 46)]
    await expect(chat.page.get_by_role("button", name="Earlier messages")).to_be_hidden()
    await chat.page.get_by_role("button", name="Latest message").click()
    await expect(chat.page.get_by_text("You said: message 45", exact=True)).to_be_in_viewport()


async def test_the_end_stays_in_view_while_a_reply_grows_unless_one_reads_further_up(chat: Chat) -> None:
    lines = "\n".join(f"line {number}" for number in range(60))
    await chat.page.set_viewport_size({"width": 600, "height": 500})
    await chat.ask(lines)
    await expect(chat.page.locator(".text").get_by_text("line 59")).to_be_in_viewport()
    await chat.say(f"slowly {lines}")
    await expect(chat.page.locator(".text").nth(1)).to_contain_text("line 10")
    await chat.page.mouse.move(300, 200)
    await chat.page.mouse.wheel(0, -300)
    await expect(chat.page.get_by_role("button", name="Latest message")).to_be_visible()
    before = await chat.page.evaluate("document.querySelector('#scroll').scrollTop")
    await chat.reply(1)
    assert await chat.page.evaluate("document.querySelector('#scroll').scrollTop") == before


async def test_the_end_stays_in_view_even_if_the_page_scrolled_just_before_it_grew(chat: Chat) -> None:
    await chat.page.set_viewport_size({"width": 600, "height": 500})
    await chat.ask("\n".join(f"line {number}" for number in range(60)))
    grow = """
        scroll => {
            const more = document.createElement("p");
            more.textContent = "more\\n".repeat(30);
            more.className = "text";
            document.querySelector("#log").append(more);
            scroll.dispatchEvent(new Event("scroll"));
        }
    """
    scroll = chat.page.locator("#scroll")
    await scroll.evaluate(grow)
    await expect(chat.page.get_by_role("button", name="Latest message")).to_be_hidden()
    assert await scroll.evaluate("it => it.scrollHeight - it.scrollTop - it.clientHeight") < 2


async def test_deleting_the_conversation_deletes_it_on_the_server(chat: Chat, served: Served) -> None:
    await chat.ask("hello")
    device = await chat.device()
    await chat.page.get_by_role("button", name="Delete conversation").click()
    await chat.page.get_by_role("button", name="Keep it").click()
    assert [turn["texts"] for turn in await chat.transcript()] == [["hello"]]
    await chat.page.get_by_role("button", name="Delete conversation").click()
    await chat.page.get_by_role("button", name="Delete", exact=True).click()
    await expect(chat.page.get_by_text("How can we help?")).to_be_visible()
    assert await chat.device() != device
    answer = await chat.page.request.get(f"{served.url}/v1/transcript", headers={"X-Device-ID": device})
    assert (await answer.json())["turns"] == []


async def test_two_people_see_nothing_of_each_other(chat: Chat, context: BrowserContext, served: Served) -> None:
    assert context.browser is not None
    other = await Chat.open(await context.browser.new_context(), served.url)
    await chat.ask("mine")
    await other.page.reload()
    await expect(other.page.get_by_text("How can we help?")).to_be_visible()
    assert await other.device() != await chat.device()
