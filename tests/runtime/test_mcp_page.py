"""The examples of docs/mcp.md work as they stand, but for where the servers are."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from moorline import Moorline, Settings
from moorline.testing import Call, ModelReply, Script, rule_client
from tests.agents.mcp import server
from tests.agents.mcp.far import far_server

PAGE = Path(__file__).parents[2] / "docs" / "mcp.md"


async def test_the_agent_of_the_page_has_accepted_tools_which_learn_who_asks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, accepts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    async with far_server() as far:
        made = re.sub(r"command=\[.*?\]", f"command={[sys.executable, server.__file__]!r}", made)
        made = made.replace("https://crm.example/mcp", far.url)
        names: dict[str, Any] = {"CRM_KEY": "s3cret"}
        exec(made, names)  # noqa: S102 - our own page
        await asyncio.to_thread(exec, accepts, names)
        exec(made, names)  # noqa: S102 - as the process starts again
        script = Script(ModelReply(calls=(Call(name="crm_whoami", arguments={}),)), "You are Ana.")
        async with Moorline(settings, agents=[names["desk"]], client=rule_client(script)) as moorline:
            assert await moorline.run("Who am I?", {"user_id": "u1", "customer": "ana"}) == "You are Ana."
    assert {"crm_look", "files_look"} < {*script.requests[0].functions}
    told = json.loads(json.loads(script.requests[1].messages[-1]["content"] or ""))
    assert told["example.com/customer"] == "ana"
    assert all("authorization: bearer s3cret" in head for head, _ in far.requests)
