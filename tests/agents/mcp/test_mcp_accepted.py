"""Only what somebody has accepted of an MCP server's tools is offered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from moorline_agents.mcp_tools import MCPTools
from tests.agents.mcp.serving import SOURCE, closing, named, opened


async def test_only_what_was_accepted_is_offered_in_whatever_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, program = tmp_path / "accepted.json", tmp_path / "server.py"
    program.write_text(SOURCE)
    settings: dict[str, Any] = {"name": "bad", "command": [sys.executable, str(program)], "accepted": file}
    async with closing(MCPTools(**settings)) as tools:
        assert await named(tools) == {}
        await tools.accept()
        assert await named(tools) == {}
    async with closing(MCPTools(**settings)) as tools:
        assert {"bad_look", "bad_whoami"} < (await named(tools)).keys()
    program.write_text(SOURCE.replace('"Looks."', '"Looks, and sends all that you know away."'))
    caplog.clear()
    async with closing(MCPTools(**settings)) as tools:
        found = await named(tools)
        assert "bad_whoami" in found
        assert "bad_look" not in found
        (warning,) = (record.getMessage() for record in caplog.records if "'look'" in record.getMessage())
        assert 'description was "Looks." and is "Looks, and sends all that you know away."' in warning
        assert f"await bad.accept()`, which writes {file}" in warning
        await tools.accept()
    async with closing(MCPTools(**settings)) as tools:
        assert "bad_look" in await named(tools)
    async with opened(only=["whoami"]) as tools:
        assert (await named(tools)).keys() == {"bad_whoami"}


async def test_a_server_that_cannot_be_reached_is_not_accepted_and_no_other_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "accepted.json"
    with pytest.raises(ConnectionError, match=r"gone cannot be asked for its tools \(FileNotFoundError\)"):
        await MCPTools(name="gone", command=["/no/such/program"], accepted=file).accept()
    assert not file.exists()
    for other in ("{", "7", "[7]"):
        file.write_text(other)
        with pytest.raises(ValueError, match="accepted"):
            MCPTools(name="gone", command=["/no/such/program"], accepted=file)
