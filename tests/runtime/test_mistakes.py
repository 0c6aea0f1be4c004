"""Mistakes in a team's own code are told when it is put together, in words that say what to write."""

import re
from dataclasses import replace
from typing import Any

import pytest
from langgraph.graph import MessagesState, StateGraph
from pydantic import BaseModel

from moorline import Agent, GraphAgent, Moorline, Router, ToolContext

from .conftest import agent


async def undecorated(arguments: BaseModel, context: ToolContext) -> str:
    """A tool that somebody forgot to decorate."""
    return "done"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tools": [undecorated]}, "undecorated is no tool. Decorate an async function"),
        ({"model": "gpt-5"}, "a model must be a Model, not 'gpt-5'"),
        ({"fallbacks": ["gpt-5"]}, "a model must be a Model, not 'gpt-5'"),
        ({"summary": "gpt-5"}, 'summary, if it is not "off", must be a Model'),
        ({"instructions": None}, "instructions must be a text"),
        ({"briefing": "It is noon."}, "briefing must be a function"),
        ({"aliases": "hairdresser"}, "aliases must be a list of names"),
    ],
)
def test_what_is_given_in_the_place_of_something_else_is_refused_when_the_agent_is_built(
    given: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(complaint)):
        Agent(**{"name": "hair", "description": "hair", "instructions": "hair", **given})


def test_a_graph_that_is_not_compiled_is_no_agent() -> None:
    with pytest.raises(TypeError, match=r"pass `graph\.compile\(\)`"):
        GraphAgent(name="g", description="g", graph=StateGraph(MessagesState))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agents", "complaint"),
    [
        ([agent("hair"), agent("hair")], "hair is used more than once"),
        ([replace(agent("hair"), aliases=["nails"]), agent("nails")], "nails is used more than once"),
        ([replace(agent("hair"), routable=False)], "at least one agent that is routable"),
        ([], "at least one agent that is routable"),
        (["hair"], "agents must be a list of Agent and GraphAgent; str is neither"),
    ],
)
def test_agents_that_cannot_be_together_are_refused_when_the_runtime_is_built(agents: Any, complaint: str) -> None:
    with pytest.raises((TypeError, ValueError), match=complaint):
        Moorline(agents=agents)


@pytest.mark.parametrize("build", [Moorline, Router])
def test_the_name_of_a_model_is_no_model(build: Any) -> None:
    with pytest.raises(TypeError, match="model must be a Model, not 'gpt-5'"):
        build(model="gpt-5")
