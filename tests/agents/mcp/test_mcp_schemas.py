"""Schemas that somebody else has written: none of them is fetched, makes a call costly, or holds anybody up."""

from __future__ import annotations

import asyncio
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from moorline_agents.mcp_arguments import arguments_model
from moorline_agents.mcp_tools import MCPTools
from tests.agents.mcp.serving import PROGRAM, closing, named


async def test_a_schema_that_refers_elsewhere_is_not_fetched() -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        Thread(target=elsewhere.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{elsewhere.server_port}/schema"
        try:
            for part in ({"$ref": url}, {"items": {"$dynamicRef": url}}):
                with pytest.raises(ValueError, match="refers to something that is not in it"):
                    await asyncio.to_thread(arguments_model, {"type": "object", "properties": {"a": part}})
        finally:
            elsewhere.shutdown()
    assert asked == []


DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(18)} | {"d18": {}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}, f"{'a' * 27}!"),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, "!"),
        ({"$defs": DOUBLING, "properties": {"a": {"$ref": "#/$defs/d0"}}}, "a"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "a"),
    ],
)
def test_no_schema_makes_a_call_costly(schema: dict[str, Any], value: str) -> None:
    model = arguments_model({"type": "object", **schema})
    began = time.monotonic()
    model.model_validate({"a": value, f"{'a' * 27}!": value})
    assert time.monotonic() - began < 1


def test_models_are_shown_a_schema_without_what_their_servers_refuse() -> None:
    parameters = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    model = arguments_model({**parameters, "anyOf": [{"required": ["a"]}], "not": {}})
    assert model.model_json_schema() == parameters


async def test_looking_at_huge_schemas_holds_nobody_up() -> None:
    env = {"WIDE": "4"}
    async with closing(MCPTools(name="bad", command=[sys.executable, str(PROGRAM)], env=env)) as tools:
        looking, longest, last = asyncio.create_task(named(tools)), 0.0, time.monotonic()
        began = last
        while not looking.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert {f"bad_wide{n}" for n in range(4)} < (await looking).keys()
    assert longest < (last - began) / 2
