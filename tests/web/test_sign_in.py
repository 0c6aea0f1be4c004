"""The page for people who sign in (MOORLINE_DEVICE_AUTH=jwt): a page of the team's brings their token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, expect

from tests.conftest import fresh_database
from tests.http.serving import Served, serving
from tests.http.test_jwt import AUDIENCE, ISSUER, JWKS, token
from tests.web.app import ASKED
from tests.web.chromium import Chat, needs_chromium
from tests.web.conftest import APP, GENEROUS

pytestmark = needs_chromium

SIGN_IN = """<script type="module">
  import { configure } from "./device.js";

  const auth = {
    user: { id: localStorage.person },
    freshToken: async () => localStorage.token ?? Promise.reject(new Error("signed out")),
  };
  configure({ token: () => auth.freshToken(), person: auth.user.id });
  await import("./chat.js");
</script>"""
SCRIPT = '<script type="module" src="chat.js"></script>'


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory, server_dsn: str, template: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("jwt")
    (folder / "asked").touch()
    (folder / "jwks.json").write_text(json.dumps(JWKS))
    issued = {
        "MOORLINE_DEVICE_AUTH": "jwt",
        "MOORLINE_JWT_JWKS": str(folder / "jwks.json"),
        "MOORLINE_JWT_ISSUER": ISSUER,
        "MOORLINE_JWT_AUDIENCE": AUDIENCE,
    }
    with (
        fresh_database(server_dsn, template) as dsn,
        serving(dsn, app=APP, **GENEROUS, **issued, **{ASKED: str(folder / "asked")}) as server,
    ):
        yield server


async def signed_in(context: BrowserContext, served: Served, person: str, signed: str | None) -> Chat:
    """The team's own page, whose sign-in knows a person and has this token for them."""
    page = (files("moorline.web") / "index.html").read_text(encoding="utf-8")
    assert SCRIPT in page
    own = page.replace(SCRIPT, SIGN_IN)
    await context.route(f"{served.url}/own.html", lambda route: route.fulfill(body=own, content_type="text/html"))
    known = {"person": person} | ({} if signed is None else {"token": signed})
    once = f"if (!localStorage.person) Object.assign(localStorage, {json.dumps(known)})"
    await context.add_init_script(once)
    chat = await Chat.open(context, f"{served.url}/own.html")
    await chat.page.locator("#empty:not([hidden]), .exchange, #connection:not(:empty)").first.wait_for()
    return chat


async def test_the_page_of_people_who_sign_in_brings_their_token(browser: Browser, signing: Served) -> None:
    chat = await signed_in(await browser.new_context(), signing, "ada", token(sub="ada", exp=time.time() + 600))
    assert await chat.ask("hello") == "You said: hello"
    await chat.page.reload()
    assert await chat.reply() == "You said: hello"
    elsewhere = await signed_in(await browser.new_context(), signing, "ada", token(sub="ada", exp=time.time() + 600))
    assert await elsewhere.reply() == "You said: hello"
    bob = await signed_in(await browser.new_context(), signing, "bob", token(sub="bob", exp=time.time() + 600))
    await expect(bob.page.get_by_text("How can we help?")).to_be_visible()
    assert chat.faults == elsewhere.faults == bob.faults == []


@pytest.mark.parametrize("outdated", [token(sub="eve", exp=1), None], ids=["expired", "none"])
async def test_who_is_no_longer_signed_in_is_told_and_goes_on_after_signing_in(
    browser: Browser, signing: Served, outdated: str | None
) -> None:
    person = f"eve-{outdated is None}"
    fresh = token(sub=person, exp=time.time() + 600)
    chat = await signed_in(await browser.new_context(), signing, person, fresh)
    assert await chat.ask("hello") == "You said: hello"
    await chat.page.evaluate("old => old ? localStorage.token = old : localStorage.removeItem('token')", outdated)
    await chat.say("still me")
    refused = chat.page.locator(".note.problem")
    await expect(refused).to_have_text("You are no longer signed in. Sign in again.")
    await expect(chat.page.get_by_role("button", name="Start a new conversation")).to_have_count(0)
    await chat.page.evaluate("fresh => localStorage.token = fresh", fresh)
    await chat.page.get_by_role("button", name="Try again").click()
    assert await chat.reply(1) == "You said: still me"

    await chat.page.evaluate("old => old ? localStorage.token = old : localStorage.removeItem('token')", outdated)
    await chat.page.reload()
    await expect(chat.page.locator("#connection")).to_contain_text("You are no longer signed in. Sign in again.")
    await chat.page.evaluate("fresh => localStorage.token = fresh", fresh)
    await chat.page.get_by_role("button", name="Try again").click()
    await expect(chat.page.locator(".exchange")).to_have_count(2)
    assert [said for said, _ in await chat.exchanges()] == ["hello", "still me"]
    assert chat.faults == []


async def test_the_page_without_a_sign_in_says_that_it_has_none(browser: Browser, signing: Served) -> None:
    chat = await Chat.open(await browser.new_context(), signing.url)
    for _ in range(2):
        await expect(chat.page.locator("#connection")).to_contain_text("You are not signed in.")
        await expect(chat.page.get_by_role("button", name="Start a new conversation")).to_have_count(0)
        await expect(chat.page.locator("#text")).to_be_disabled()
        await chat.page.reload()
    assert chat.faults == []


async def test_a_device_that_was_not_signed_yet_can_begin_anew(browser: Browser, dsn: str, tmp_path: Path) -> None:
    (tmp_path / "asked").touch()
    with serving(dsn, app=APP, MOORLINE_DEVICE_AUTH="signed", **{ASKED: str(tmp_path / "asked")}) as server:
        context = await browser.new_context()
        bare = json.dumps({"id": "bare", "token": None})
        await context.add_init_script(f"localStorage['moorline.device'] ??= {json.dumps(bare)}")
        chat = await Chat.open(context, server.url)
        await chat.page.get_by_role("button", name="Start a new conversation").click()
        assert await chat.ask("hello") == "You said: hello"
    assert chat.faults == []
