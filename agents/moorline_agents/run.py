"""What the nodes of agents get in a run of their graph, and what they return."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from langgraph.channels import UntrackedValue
from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema
from typing_extensions import TypedDict  # before Python 3.12 pydantic makes no schema of the other one

from moorline_agents.conversation import Conversation, NoConversation
from moorline_agents.files import ReadFiles, no_files
from moorline_agents.history import Closing
from moorline_agents.journal import Journal, NoJournal
from moorline_agents.messages import Usage
from moorline_agents.model import Model
from moorline_agents.questions import Given
from moorline_agents.stopping import Stop
from moorline_agents.telling import SILENCE, Telling
from moorline_agents.tools import ToolContext
from moorline_agents.tracing import UNTRACED, Tracing
from moorline_agents.unfinished import UnfinishedCall
from moorline_agents.window import PROMPT_TOKENS


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of an agent's part of a turn."""

    text: str = ""
    handoff: str | None = None
    """The agent that is to answer instead."""
    reason: str = ""
    """Why, in the words of the agent's model."""
    note: str = ""
    """What the next agent should know, in the same words."""
    released: bool = False
    """Whether the agent's job is done, so that the session can be released."""


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """A hand-over, as the agent that begins after it learns of it."""

    by: str
    reason: str
    note: str


@dataclass(kw_only=True)
class Progress:
    """The outcome of a turn so far. It belongs to one run of the graph and is never stored."""

    agent: str | None = None
    """The agent whose part of the turn it is; in the end, the one that answered."""
    reply: str = ""
    output: Any = None
    """The answer as JSON, if the agent's answers are structured."""
    handoffs: tuple[str, ...] = ()
    answered_by: str | None = ""
    """As in the state, `TurnState.answered_by`; empty in a run that goes on after a question, which is not routed."""
    handed_over: HandedOver | None = None
    """The last hand-over, until the next agent begins."""
    usage: Usage = field(default_factory=Usage)
    """What all answers cost so far, those of the router and of failed attempts at the turn included."""
    released: bool = False
    """Whether the agent has said that its job is done."""
    rounds: int = 0
    """How often the agent's model has called tools in this part of the turn."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run of the graph knows besides its state; never stored."""

    tools: ToolContext
    telling: Telling = SILENCE
    tracing: Tracing = UNTRACED
    stop: Stop = field(default_factory=Stop)
    journal: Journal = NoJournal()
    read_files: ReadFiles = no_files
    """Gives the bytes of the conversation's files."""
    unfinished: Sequence[UnfinishedCall] = ()
    """What all agents' tools did for earlier messages that have not been answered, oldest first."""
    progress: Progress = field(default_factory=Progress)
    conversation: Conversation = NoConversation()
    given: Given | None = None
    """The answer with which the run goes on, if it answers a question of `ToolContext.ask` or a confirmation."""
    closed: Closing = "not_answered"
    """Why a question that waited before the turn was closed, if one did."""
    ran: Mapping[str, Any] | None = None
    """With the `value` that the call gave whose question was closed, if it did run for an earlier answer."""
    until: float = math.inf
    """When the caller stops waiting, by the clock of the event loop."""

    @property
    def seconds_left(self) -> float:
        """How long the caller still waits."""
        return max(self.until - asyncio.get_running_loop().time(), 0)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """LangChain's tools take it as `ToolRuntime[RunContext]`, and pydantic shall not look inside."""
        as_it_is = core_schema.plain_serializer_function_ser_schema(lambda context: context)
        return core_schema.is_instance_schema(cls, serialization=as_it_is)


class Next(NamedTuple):
    """Where a run goes on when an agent's part of the turn is over."""

    node: str
    update: Mapping[str, Any] = MappingProxyType({})
    """What the node that ends the part writes to the state, besides what is the agent's."""


class AgentHost(Protocol):
    """The graph that an agent's nodes belong to."""

    @property
    def handoffs(self) -> Sequence[str]:
        """The nodes to which a hand-over may lead; pictures of the graph show them."""

    async def enter(self, context: RunContext) -> None:
        """Called when the agent's part of the turn begins, or continues after it stopped to ask."""

    async def leave(self, outcome: Outcome, context: RunContext) -> Next:
        """Called when the agent's part of the turn is over."""


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """What an agent knows of another agent that it may hand over to."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class AgentDeps:
    """What the runtime gives every agent whose nodes it adds to its graph."""

    model: Model
    others: tuple[AgentInfo, ...] = ()
    tool_rounds: int = 8
    """How often an agent's model may call tools in its part of a turn before it has to answer."""
    tool_timeout: float | None = None
    """Seconds that a call of a tool may take that does not say so itself, and a check; None: any number."""
    prompt_tokens: int = PROMPT_TOKENS
    """How many tokens a request to an agent's model may have, by estimate."""
    summary: Model | Literal["off"] | None = None
    """What sums up what falls out of the agents' histories; None: each agent's own model."""
    yes_no: tuple[str, str] = ("yes", "no")
    """The words with which a person answers when a call is to be confirmed."""


TurnTexts = Annotated[list[str], UntrackedValue]
"""The texts of the messages that a turn answers; one that came with files is a `SaidText`."""


class TurnInput(TypedDict, total=False):
    """The input of a graph of agents."""

    texts: TurnTexts


class TurnState(TurnInput, total=False):
    """What all agents of a graph share."""

    begun: list[str]
    """The `GraphAgent`s that have been asked since the person started over; absent if the person never did."""
    answered_by: str | None
    """The agent that answered last, if it keeps no session and hands over what is not its job; else None, or absent."""
