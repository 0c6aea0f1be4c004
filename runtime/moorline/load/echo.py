"""The agents that a load test asks by default. Their model repeats what it was shown, so that a reply proves whose
conversation it belongs to, and what of it was remembered."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from moorline.load.conversations import marks_in, person_of
from moorline.runtime import Moorline
from moorline.settings import Settings, load_settings
from moorline_agents.agent import Agent
from moorline_agents.control import ROUTE
from moorline_agents.messages import Usage
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

AGENTS = ("port", "starboard")
"""Half of the people are routed to each."""

TTL = 3_600
"""Seconds of a session: a load test takes less."""


def agent_of(mark: str) -> str:
    """The agent to which a person's first message is routed."""
    return AGENTS[person_of(mark) % len(AGENTS)]


def echo_client(*, latency: float = 0.0) -> AsyncOpenAI:
    """A real OpenAI client whose model repeats the IDs of all messages that it is shown. Each of its answers takes
    `latency` seconds."""

    async def answer(request: ModelRequest) -> ModelReply:
        if latency:
            await asyncio.sleep(latency)
        said = [str(message["content"]) for message in request.messages if message["role"] == "user"]
        marks = [mark for text in said for mark in marks_in(text)]
        if ROUTE in request.functions:
            agent = agent_of(marks[-1]) if marks else AGENTS[0]
            return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": agent}),))
        # The number is another one each time, so that a message that is answered twice has two different replies.
        text = f"{request.system}, answer {uuid4().hex[:12]}: {' '.join(marks)}"
        return ModelReply(text=text, usage=Usage(10 * len(said), 10))

    return rule_client(answer)


def echo_moorline(settings: Settings | None = None, *, latency: float = 0.0) -> Moorline:
    """A runtime with two agents that ask such a model. The first message of a device needs two of its answers, because
    it is routed. Its transcripts come from the primary: on a replica, the last turns may still be missing."""
    settings = (settings or load_settings()).model_copy(update={"replica_url": None, "model_api": "chat"})
    agents = [
        Agent(name=name, description="load tests", instructions=name, session_ttl=TTL, summary="off") for name in AGENTS
    ]
    return Moorline(settings, agents=agents, client=partial(echo_client, latency=latency))
