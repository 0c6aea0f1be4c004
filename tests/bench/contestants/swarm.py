"""langgraph-swarm as its documentation builds it: two agents, of which the first hands over to the second in the first
turn of a device; every later turn goes straight to the second, the active agent."""

# ruff: noqa: ARG002 - a model is given more than a scripted one looks at

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph_swarm import create_handoff_tool, create_swarm

from tests.bench.contestants import Turn
from tests.bench.contestants.notes import NOTE, TOOL
from tests.bench.conversation import answer

HOLDER = "orders"


class Model(BaseChatModel):
    """Hands over to an agent, or answers after a fixed number of seconds, without HTTP; one that calls the tool does so
    first."""

    seconds: float = 0.0
    hands_over_to: str | None = None
    calls_tool: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError  # the base class requires it; the swarm is only awaited here

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.hands_over_to:
            call = {"name": f"transfer_to_{self.hands_over_to}", "args": {}, "id": "call_1"}
            return _result(AIMessage("", tool_calls=[call]))
        shown = sum(message.type == "human" for message in messages)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
        if self.calls_tool and messages[-1].name != TOOL:
            call = {"name": TOOL, "args": {"note": NOTE}, "id": f"call_{uuid4().hex}"}
            return _result(AIMessage("", tool_calls=[call], usage_metadata=usage))
        return _result(AIMessage(answer(shown), usage_metadata=usage))


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def on(saver: BaseCheckpointSaver[Any], model_seconds: float, tools: Sequence[BaseTool] = ()) -> Turn:
    """The swarm, compiled on a saver; the second agent has the tools."""
    holder = create_agent(
        Model(seconds=model_seconds, calls_tool=bool(tools)),
        tools=[create_handoff_tool(agent_name="concierge", description="everything else"), *tools],
        system_prompt="You take orders.",
        name=HOLDER,
    )
    concierge = create_agent(
        Model(hands_over_to=HOLDER),
        tools=[create_handoff_tool(agent_name=HOLDER, description="orders and deliveries")],
        system_prompt="You help.",
        name="concierge",
    )
    swarm = create_swarm([concierge, holder], default_active_agent="concierge").compile(checkpointer=saver)

    async def turn(device: str, text: str) -> str:
        said = {"messages": [{"role": "user", "content": text}]}
        state = await swarm.ainvoke(said, {"configurable": {"thread_id": device}})
        if state["active_agent"] != HOLDER:
            raise ValueError(f"{state['active_agent']} is active instead of {HOLDER}")
        return str(state["messages"][-1].content)

    return turn


@asynccontextmanager
async def in_memory(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """On a dictionary in this process."""
    yield on(InMemorySaver(), model_seconds)


@asynccontextmanager
async def on_postgres(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """On LangGraph's own saver for PostgreSQL."""
    from tests.bench.contestants.postgres_saver import postgres_saver

    async with postgres_saver(dsn) as saver:
        yield on(saver, model_seconds)


@asynccontextmanager
async def with_tool(dsn: str, model_seconds: float) -> AsyncIterator[Turn]:
    """The same with a tool that every turn calls once; its rows go through a pool of their own."""
    from tests.bench.contestants.postgres_saver import postgres_saver
    from tests.bench.contestants.psycopg_tool import note_tool

    async with note_tool(dsn) as tool, postgres_saver(dsn) as saver:
        yield on(saver, model_seconds, [tool])
