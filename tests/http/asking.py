"""An app with the HTTP face, asked in this process, on a real database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from moorline import Moorline, Settings
from moorline.http import HttpSettings
from moorline.http.server import application
from moorline_agents.transport import rule_client

from .app import hair, repeating

FAST = {"rate_device": "100000/second", "rate_address": "100000/second", "rate_new_devices": "100000/second"}


def moorline_on(dsn: str, **settings: Any) -> Moorline:
    return Moorline(Settings(database_url=dsn, **settings), agents=[hair], client=lambda: rule_client(repeating))


@asynccontextmanager
async def asking(
    moorline: Moorline, *, client: str = "127.0.0.1", headers: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the served app, at this address."""
    app = application(moorline, HttpSettings(**FAST | settings))
    transport = httpx2.ASGITransport(app, client=(client, 50000))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as asked,
    ):
        yield asked


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
