"""The example of docs/models.md works as it stands."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from moorline import Moorline, Settings
from tests.agents.model.test_langchain import ending

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


async def test_the_agent_of_the_page_is_answered_by_its_fallback(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
        path = head.split()[1]
        asked[path] = json.loads(await reader.readexactly(length))
        status, told = "401 Unauthorized", "{}"
        if path == "/v1/messages":
            status = "200 OK"
            told = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in ending("end_turn"))
        writer.write(
            f"HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{told}".encode()
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
            monkeypatch.setenv(name, "k")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        monkeypatch.setenv("ANTHROPIC_API_URL", url)
        names: dict[str, Any] = {}
        exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], names)  # noqa: S102 - our own page
        async with Moorline(settings, agents=[names["visits"]]) as moorline:
            assert await moorline.run("Hello", {"device_id": "d1"}) == "Okay, one moment."
    first, second = asked["/v1/responses"], asked["/v1/messages"]
    assert (first["model"], first["reasoning"]["effort"], first["max_output_tokens"]) == ("gpt-5.1", "low", 2_000)
    assert (first["store"], second["model"], second["max_tokens"]) == (False, "claude-sonnet-5-5", 2_000)
