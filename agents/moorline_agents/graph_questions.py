"""What a graph has open after it stopped to ask, closed because the person wrote instead of answering."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.graph import END

from moorline_agents.history import NOT_ANSWERED

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph


logger = logging.getLogger("moorline.agents")


async def close_question(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig) -> None:
    """Ends the run that stopped: what tasks have finished counts, the others are dropped, and each call of the last
    answer in `messages` that has no result yet gets one that says so."""
    state = await graph.aget_state(config)
    if not state.tasks:
        return
    # LangGraph's way to apply the writes of finished tasks and to clear the rest.
    await graph.aupdate_state(config, None, as_node=END)
    closing = _closing((await graph.aget_state(config)).values.get("messages", ()))
    if not closing:
        return
    try:
        await graph.aupdate_state(config, {"messages": closing}, as_node=state.tasks[0].name)
    except Exception as error:
        logger.warning("A graph's open calls could not be closed: %s.", type(error).__name__)
    else:
        await graph.aupdate_state(config, None, as_node=END)


def _closing(messages: Sequence[BaseMessage]) -> list[ToolMessage]:
    settled = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            settled.add(message.tool_call_id)
        else:
            calls = message.tool_calls if isinstance(message, AIMessage) else ()
            return [_unanswered(call["id"], call["name"]) for call in calls if call["id"] not in settled]
    return []


def _unanswered(call_id: str | None, name: str) -> ToolMessage:
    told = {"error": NOT_ANSWERED, "code": "not_answered"}
    return ToolMessage(json.dumps(told), tool_call_id=call_id or "", name=name, status="error")
