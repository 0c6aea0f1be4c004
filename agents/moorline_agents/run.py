"""What the nodes of agents are given in a run of their graph, and what they give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypedDict

from langgraph.channels import UntrackedValue

from moorline_agents.journal import Journal, NoJournal
from moorline_agents.messages import Usage
from moorline_agents.model import Model
from moorline_agents.tools import ToolContext
from moorline_agents.unfinished import UnfinishedCall


class OnText(Protocol):
    """Is told the reply's text while a model writes it."""

    def __call__(self, text: str, /) -> None:
        """The next piece."""

    def withdraw(self) -> None:
        """What it was told so far is not part of the reply after all: the model called tools instead of answering."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an agent's part of a turn came to."""

    text: str = ""
    handoff: str | None = None
    """The agent that shall answer instead."""
    released: bool = False
    """Whether the agent's job is done and the session can be let go."""
    usage: Usage = Usage()


@dataclass(kw_only=True)
class Progress:
    """What a turn has come to so far. It belongs to one run of the graph and is never stored."""

    agent: str | None = None
    """The agent whose part of the turn it is, at last the one that answered."""
    reply: str = ""
    handoffs: tuple[str, ...] = ()
    usage: Usage = Usage()
    released: bool = False
    """Whether the agent has said that its job is done."""


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run of the graph knows besides its state; never stored."""

    tools: ToolContext
    on_text: OnText | None = None
    journal: Journal = NoJournal()
    unfinished: Sequence[UnfinishedCall] = ()
    """What was done for earlier messages that have not been answered, of all agents, oldest first."""
    progress: Progress = field(default_factory=Progress)


class AgentHost(Protocol):
    """The graph that an agent's nodes stand in."""

    @property
    def handoffs(self) -> Sequence[str]:
        """The nodes to which a hand-over may lead; pictures of the graph show them."""

    async def enter(self, context: RunContext) -> None:
        """The agent's part of the turn begins, or goes on after it stopped to ask."""

    async def leave(self, outcome: Outcome, context: RunContext) -> str:
        """The agent's part of the turn is over; the node to go to next."""


@dataclass(frozen=True, kw_only=True)
class AgentInfo:
    """Another agent, as an agent that may hand over to it sees it."""

    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class AgentDeps:
    """What the runtime gives every agent whose nodes it adds to its graph."""

    model: Model
    others: tuple[AgentInfo, ...] = ()
    tool_rounds: int = 8
    """How often a model may call tools before it has to answer."""


Texts = Annotated[list[str], UntrackedValue]
"""Those of the messages that a turn answers."""


class TurnInput(TypedDict, total=False):
    """What a graph of agents is called with."""

    texts: Texts
