"""The manager's control tools for graphs of LangChain tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools.base import ArgsSchema
from pydantic import BaseModel, Field

from moorline_agents import control
from moorline_agents.errors import AgentError
from moorline_agents.graph_part import Part, current_part
from moorline_agents.tools import ToolRefused


def handover_tools() -> list[BaseTool]:
    """`hand_over` and `end_session`, which a `GraphAgent`'s graph may give to its model like any other tools. Used
    outside a turn of a `GraphAgent`, they raise `AgentError`.

    A model that gets its tools during the turn, as in `create_agent`, sees which agents there are. A hand-over ends
    the graph's part of the turn: `create_agent` stops there, and what another graph says afterwards is not shown.
    """
    hand_over = control.hand_over_schema({})["function"]
    end_session = control.END_SESSION_SCHEMA["function"]
    return [
        _HandOver(
            name=hand_over["name"],
            description=hand_over["description"],
            func=_hand_over,
            coroutine=_awaited(_hand_over),
            args_schema=_Target,
        ),
        StructuredTool(
            name=end_session["name"],
            description=end_session["description"],
            func=_end_session,
            coroutine=_awaited(_end_session),
            args_schema=_Nothing,
        ),
    ]


class _Target(BaseModel):
    agent: str = Field(description="The name of the agent.")
    reason: str = Field(default="", description="In a few words.")
    note: str = Field(default="", description="What the other agent should know, if anything.")


class _Nothing(BaseModel):
    pass


class _HandOver(StructuredTool):
    @property
    def tool_call_schema(self) -> ArgsSchema:
        part = current_part()
        if part is None or not part.others:
            return super().tool_call_schema
        parameters: dict[str, Any] = control.hand_over_schema(part.others)["function"]["parameters"]
        return {"title": self.name, "description": self.description, **parameters}


def _ends_the_run(_: _HandOver) -> bool:
    """After a refusal the model goes on."""
    part = current_part()
    return part is None or part.handoff is not None


# In the body of the class pydantic would take the property for the default of the field.
_HandOver.return_direct = property(_ends_the_run)  # type: ignore[assignment]


def _hand_over(agent: str, reason: str = "", note: str = "") -> str:
    part = _running()
    if part.handoff is not None:
        return _told({"error": f"The conversation was handed over to {part.handoff} already; this one does not stand."})
    try:
        control.hand_over_target(agent, part.others, own_names=(part.agent,))
    except ToolRefused as refusal:
        return _told(refusal.shown())
    part.handoff, part.reason, part.note = control.hand_over(agent, reason=reason, note=note)
    return _told({"handed_over_to": agent})


def _end_session() -> str:
    _running().released = True
    return _told({"ended": True})


def _awaited(function: Callable[..., str]) -> Callable[..., Coroutine[Any, Any, str]]:
    """In the loop's own thread the calls of one answer run in their order."""

    async def call(**arguments: Any) -> str:
        return function(**arguments)

    return call


def _running() -> Part:
    part = current_part()
    if part is None:
        raise AgentError("hand_over and end_session work in a turn of a GraphAgent only.")
    return part


def _told(result: dict[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False)
