"""A server and a browser for the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext

from tests.conftest import fresh_database
from tests.http.serving import Served, serving
from tests.web.app import ASKED
from tests.web.chromium import Chat, running_browser

APP = "tests.web.app:moorline"
GENEROUS = {"MOORLINE_RATE_DEVICE": "1000/second", "MOORLINE_RATE_ADDRESS": "1000/second"}


@pytest.fixture(scope="package")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the model was asked and what tools did, a line each."""
    file = tmp_path_factory.mktemp("web") / "asked"
    file.touch()
    return file


@pytest.fixture(scope="package")
def served(server_dsn: str, template: str, asked: Path) -> Iterator[Served]:
    with (
        fresh_database(server_dsn, template) as dsn,
        serving(dsn, app=APP, **GENEROUS, **{ASKED: str(asked)}) as server,
    ):
        yield server


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with running_browser() as browser:
        yield browser


@pytest.fixture
async def context(browser: Browser) -> BrowserContext:
    return await browser.new_context()


@pytest.fixture
async def chat(context: BrowserContext, served: Served) -> AsyncIterator[Chat]:
    """The page of a new device."""
    chat = await Chat.open(context, served.url)
    yield chat
    assert chat.faults == []
