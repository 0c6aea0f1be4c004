"""The `Moorline` behind the page in these tests. What its model does, the person's words say."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from langgraph.types import interrupt
from pydantic import BaseModel

from moorline import Moorline
from moorline_agents.agent import Agent
from moorline_agents.tools import ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, RawReply, Reply, respond, rule_client
from tests.strict_model import StrictModel

ASKED = "TESTS_WEB_ASKED"
"""The environment variable with the file that gets a line for each thing that was asked of a model or done."""
FAILURES = 6
"""Requests that fail: as many as two runs of a turn make."""


class Nothing(BaseModel):
    pass


@tool()
async def find_slots(_: Nothing, context: ToolContext) -> dict[str, str]:
    """Looks for free times."""
    await asyncio.sleep(1)
    return {"free": "10:00"}


@tool()
async def check_credit(_: Nothing, context: ToolContext) -> None:
    """Refuses."""
    raise ToolRefused("No credit.", code="no_credit")


@tool(effect="outside")
async def pay(_: Nothing, context: ToolContext) -> dict[str, bool]:
    """Pays."""
    note(f"paid for {context.device_id}")
    return {"paid": True}


@tool()
async def confirm(_: Nothing, context: ToolContext) -> dict[str, Any]:
    """Asks with options."""
    options = ["Yes, book it", "Another time", {"label": "Another person", "value": {"person": 2}}]
    return {"said": interrupt({"question": "Shall I book Tuesday, 10:00?", "options": options})}


@tool()
async def name(_: Nothing, context: ToolContext) -> dict[str, Any]:
    """Asks for words."""
    return {"said": interrupt("What is your name?")}


TOOLS = [find_slots, check_credit, pay, confirm, name]
desk = Agent(name="front_desk", description="everything", instructions="You are the desk.", tools=TOOLS)
orders = Agent(name="orders", description="orders", instructions="You know orders.")


def note(line: str) -> None:
    with Path(os.environ[ASKED]).open("a", encoding="utf-8") as lines:
        lines.write(f"{line}\n")


def times(line: str) -> int:
    return Path(os.environ[ASKED]).read_text(encoding="utf-8").splitlines().count(line)


async def rules(request: ModelRequest) -> Reply:
    """`use TOOL …` calls tools, `slowly …` takes its time, `fail …` fails, `hand over` does so; else it repeats."""
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "front_desk"}),))
    asked = max(at for at, message in enumerate(request.messages) if message["role"] == "user")
    said = request.said[-1]
    results = [str(message["content"]) for message in request.messages[asked:] if message["role"] == "tool"]
    note(said)
    if "hand over" in said and "know orders" not in request.system:
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "orders", "reason": "it is theirs"}),))
    if said.startswith("use ") and not results:
        used = [word for word in said.split() if word in request.functions]
        return ModelReply(text="Let me see …", calls=tuple(Call(name=each) for each in used))
    if said.startswith("fail") and times(said) <= FAILURES:
        return RawReply(status=500, headers={"retry-after-ms": "1"}, pieces=(b"{}",))
    pictures = len(pictures_of(request.messages[asked]["content"]))
    seen = f" I see {pictures}." if pictures else ""
    answer = ModelReply(text=" ".join(results) or f"You said: {said}{seen}")
    return await slowly(request, answer) if "slowly" in said else answer


def pictures_of(content: object) -> list[object]:
    """The pictures that the model is shown with a message."""
    return [part for part in content if part["type"] == "image_url"] if isinstance(content, list) else []


async def slowly(request: ModelRequest, answer: ModelReply) -> Reply:
    body = {"model": request.model, "messages": request.messages, "stream": request.stream}
    raw = await respond(lambda _: answer, json.dumps(body).encode())
    pause = re.search(r"slowly ([\d.]+)", str(answer.text))
    return replace(raw, pause=float(pause[1]) if pause else 0.4)


moorline = Moorline(agents=[desk, orders], client=lambda: rule_client(StrictModel(rules=rules, limit=1_000_000)))
