"""A real Chromium, and the page in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium", path=os.environ.get("PATH", "") + ":/usr/bin")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

ARGUMENTS = [
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]

PATIENCE = 20_000
"""Milliseconds in which the page has to show something."""


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def without_storage(folder: Path) -> AsyncIterator[BrowserContext]:
    """A browser whose person lets no page store anything."""
    (folder / "Default").mkdir()
    blocked = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (folder / "Default" / "Preferences").write_text(json.dumps(blocked))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(folder, executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield context
        finally:
            await context.close()


class Chat:
    """The page, as a person uses it."""

    def __init__(self, page: Page) -> None:
        page.set_default_timeout(PATIENCE)
        self.page = page
        self.faults: list[str] = []
        """What went wrong in its scripts, and what it tried against its security policy."""
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    @classmethod
    async def open(cls, context: BrowserContext, url: str) -> Chat:
        chat = cls(await context.new_page())
        await chat.page.goto(url)
        return chat

    async def say(self, text: str) -> None:
        await self.page.fill("#text", text)
        await self.page.press("#text", "Enter")

    async def ask(self, text: str) -> str:
        """Says it, and waits for the reply."""
        number = await self.page.locator(".exchange").count()
        await self.say(text)
        return await self.reply(number)

    async def reply(self, number: int = 0) -> str:
        """The reply of an exchange, as soon as it is whole."""
        exchange = self.page.locator(".exchange").nth(number)
        await expect(exchange).to_have_attribute("data-state", "done", timeout=PATIENCE)
        return await exchange.locator(".text").inner_text()

    async def writing(self, number: int = 0) -> None:
        """Waits until an exchange shows the beginning of its reply."""
        exchange = self.page.locator(f"#log > :nth-child({number + 1})[data-state=running]")
        await exchange.locator(".text:not(:empty)").wait_for()

    async def exchanges(self) -> list[tuple[str, str]]:
        """What was said and answered, as it is shown."""
        script = """
            all => all.map(each => [
                [...each.querySelectorAll(".bubble")].map(bubble => bubble.lastChild.textContent).join(" | "),
                each.querySelector(".text").textContent])
        """
        return [(said, reply) for said, reply in await self.page.locator(".exchange").evaluate_all(script)]

    async def device(self) -> str:
        found = await self.page.evaluate("import('/device.js').then(module => module.ensureDeviceId())")
        return str(found)

    async def kept(self) -> list[str]:
        """The messages that the page keeps."""
        found = await self.page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('moorline.message.'))")
        return [str(key) for key in found]

    async def transcript(self) -> list[dict[str, Any]]:
        """What the server has stored, oldest first."""
        script = "import('/device.js').then(module => module.transcript({limit: 100}))"
        return list(reversed((await self.page.evaluate(script))["turns"]))
