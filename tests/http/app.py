"""The `Moorline` that the servers of these tests serve. Its model repeats what it is told, at the pace it is told."""

import asyncio
import re

from moorline import Moorline
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client


async def repeating(request: ModelRequest) -> ModelReply:
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": "hair"}),))
    said = str(request.messages[-1]["content"])
    if seconds := re.search(r"in ([\d.]+) seconds", said):
        await asyncio.sleep(float(seconds[1]))
    return ModelReply(text=f"You said: {said}")


hair = Agent(name="hair", description="everything", instructions="You are hair.")
moorline = Moorline(agents=[hair], client=lambda: rule_client(repeating))
