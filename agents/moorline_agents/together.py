"""Calls that only read, made at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from langgraph.errors import GraphInterrupt

from moorline_agents.background import ended
from moorline_agents.messages import Message, ToolCall

Result = Callable[[ToolCall], Awaitable[Message]]


async def together(calls: Sequence[ToolCall], result: Result) -> tuple[Message, ...]:
    """The results of the calls, in their order, without those that stopped to ask: these are made again, alone. If all
    of them ask, the first one's question is raised. What else one raises ends the others."""
    tasks = [asyncio.create_task(_unless_it_asks(call, result)) for call in calls]
    try:
        outcomes = await asyncio.gather(*tasks)
    finally:
        await ended(*tasks)
    done = tuple(each for each in outcomes if not isinstance(each, GraphInterrupt))
    if not done:
        assert isinstance(outcomes[0], GraphInterrupt)  # noqa: S101 - all of them ask
        raise outcomes[0]
    return done


async def _unless_it_asks(call: ToolCall, result: Result) -> Message | GraphInterrupt:
    try:
        return await result(call)
    except GraphInterrupt as question:
        return question
