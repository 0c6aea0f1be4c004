"""What a graph has open after it stopped, closed because the person wrote instead of answering, or stopped it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langgraph.graph import END

from moorline_agents.history import CLOSED, Closing
from moorline_agents.stopping import STOPPED

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph


logger = logging.getLogger("moorline.agents")


async def close_question(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, why: Closing = "not_answered"
) -> None:
    """Ends the run that stopped to ask: what tasks have finished counts, the others are dropped, and each call of the
    last answer in `messages` that has no result yet gets one that says so."""
    await _close(graph, config, {"error": CLOSED[why], "code": why})


async def close_stopped(graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, *, said: str) -> None:
    """Ends a run that the person stopped, in the same way; `said` becomes its answer."""
    await _close(graph, config, {"error": STOPPED, "code": "stopped"}, AIMessage(said))


async def _close(
    graph: CompiledStateGraph[Any, Any, Any, Any], config: RunnableConfig, result: dict[str, str], *last: BaseMessage
) -> None:
    state = await graph.aget_state(config)
    if not state.tasks:
        return
    # LangGraph's way to apply the writes of finished tasks and to clear the rest.
    await graph.aupdate_state(config, None, as_node=END)
    messages = (await graph.aget_state(config)).values.get("messages", ())
    closing = [*_closing(messages, json.dumps(result)), *last]
    if not closing:
        return
    try:
        await graph.aupdate_state(config, {"messages": closing}, as_node=state.tasks[0].name)
    except Exception as error:
        logger.warning("A graph's open calls could not be closed: %s.", type(error).__name__)
    else:
        await graph.aupdate_state(config, None, as_node=END)


def _closing(messages: Sequence[BaseMessage], result: str) -> list[BaseMessage]:
    settled = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            settled.add(message.tool_call_id)
        else:
            calls = message.tool_calls if isinstance(message, AIMessage) else ()
            return [
                ToolMessage(result, tool_call_id=call["id"] or "", name=call["name"], status="error")
                for call in calls
                if call["id"] not in settled
            ]
    return []
