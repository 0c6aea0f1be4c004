"""One run of a GraphAgent's graph inside a turn, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langgraph.config import get_config
from langgraph.errors import GraphDrained, GraphInterrupt, ParentCommand
from langgraph.runtime import RunControl
from langgraph.types import Command, Interrupt, Send

from moorline_agents.briefing import BRIEFING_ID
from moorline_agents.errors import AgentError
from moorline_agents.graph_files import text_of
from moorline_agents.graph_part import Part, Writing, running
from moorline_agents.graph_questions import close_question, close_stopped
from moorline_agents.graph_tracing import following
from moorline_agents.run import Outcome, RunContext
from moorline_agents.stopping import Stop, Stopped

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph
    from langgraph.types import StateSnapshot

_RUNTIME = "__pregel_runtime"
"""Where LangGraph keeps the runtime of the graph around."""


class _Control(RunControl):
    """Has a graph of a stopped turn end before its next step."""

    __slots__ = ("_stop",)

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    @property
    def drain_requested(self) -> bool:
        return self._stop.requested


class GraphRun:
    """Runs the graph once, from its input or on from where it stopped to ask."""

    def __init__(self, graph: CompiledStateGraph[Any, Any, Any, Any], context: RunContext, part: Part) -> None:
        self._graph = graph
        self._context = context
        self._part = part
        self._writing = Writing(context.telling) if context.telling.heard else None
        self._known: Sequence[Any] | None = None
        """The graph's messages when the run began."""
        self._messages: Sequence[Any] = ()
        self._outermost: int | None = None
        """How deep the graph's own namespace is."""

    async def outcome(self, given: Any) -> Outcome:
        """What comes of the run; of one that is stopped, what it said so far. Raises GraphInterrupt if it stops to ask,
        and AgentError if it hands over to nobody that is there."""
        answer: str | None = None
        try:
            self._context.stop.check()
            with running(self._part), self._context.tracing.part(), following(self._context.tracing):
                await self._run(given)
        except Stopped:
            answer = self._context.telling.said or self._context.stop.text
            left = await self._left()
            if left.values:
                self._keep(left.values)
            await close_stopped(self._graph, get_config(), said=answer)
        except ParentCommand as going:
            self._keep((await self._left()).values)
            self._part.handoff = self._target(going.args[0])
            # The call that handed over has no result, and models refuse a history with an open call.
            await close_question(self._graph, get_config())
        except GraphInterrupt as asking:
            left = await self._left()
            self._keep(left.values)
            if asking.args[0]:
                raise
            raise GraphInterrupt((self._breakpoint(left),)) from asking
        finally:
            self._count()
        if self._part.handoff is not None and self._writing is not None:
            self._writing.withdraw()
        part = self._part
        answer = self._answer() if answer is None else answer
        return Outcome(text=answer, handoff=part.handoff, reason=part.reason, note=part.note, released=part.released)

    def last_texts(self) -> list[str]:
        """The texts that the person wrote last, as the graph knows them."""
        texts: list[str] = []
        for message in reversed(self._messages):
            if message.type == "human" and str(message.id).startswith(BRIEFING_ID):
                continue
            if message.type == "human":
                texts.insert(0, text_of(message))
            elif texts:
                break
        return texts

    async def _run(self, given: Any) -> None:
        graph = self._graph
        modes: list[Any] = ["values"]
        if self._writing is not None:
            modes.append("messages")
        options: Any = {"context": self._context} if graph.context_schema else {}
        stop, listener = self._context.stop, self._part.listener
        parts = graph.astream(
            given,
            self._config(),
            stream_mode=modes,
            subgraphs=True,
            version="v2",
            control=_Control(stop),
            **options,
        )
        # A stopped run ends with its step, which ends at once if it only asks a model: what a tool does is finished.
        async with stop.ends(listener.only_models) as ending:
            listener.on_change = ending.reconsider
            try:
                async for part in parts:
                    self._take(part)
            except GraphDrained:
                raise Stopped from None

    def _config(self) -> RunnableConfig:
        """With the store of the graph, which LangGraph would take from the graph around. A graph that declares no
        context must not get that of the graph around, which pydantic would warn of wherever a tool takes LangGraph's
        runtime."""
        runtime = get_config()["configurable"][_RUNTIME]
        runtime = runtime.override(store=self._graph.store or self._context.tools.memory)
        return {"configurable": {_RUNTIME: runtime if self._graph.context_schema else runtime.override(context=None)}}

    def _take(self, part: Any) -> None:
        if part["type"] == "messages" and self._writing is not None:
            message, metadata = part["data"]
            self._writing.piece(message, metadata["langgraph_checkpoint_ns"])
            return
        depth = len(part["ns"])
        self._outermost = depth if self._outermost is None else self._outermost
        if depth == self._outermost:
            self._keep(part["data"])
            if self._writing is not None:
                self._writing.step()

    async def _left(self) -> StateSnapshot:
        """Where the graph stopped. What its last step gave was not streamed."""
        return await self._graph.aget_state(get_config())

    def _keep(self, state: Any) -> None:
        self._messages = state["messages"] if isinstance(state, Mapping) else state.messages
        self._known = self._messages if self._known is None else self._known

    def _answer(self) -> str:
        last = self._messages[-1] if self._messages else None
        return "" if last is None or last.type == "human" else str(last.text)

    def _count(self) -> None:
        known = {message.id for message in self._known or ()}
        new = [message for message in self._messages if message.id is None or message.id not in known]
        unheard = self._part.listener.unheard(new)
        for spent in unheard:
            self._context.telling.spent(spent.model, spent.usage)
        for spent in (*self._part.listener.spent, *unheard):
            usage = spent.usage.labelled(model=spent.model, agent=self._context.tools.agent)
            self._context.progress.usage += usage

    def _target(self, command: Command[Any]) -> str:
        goto = (
            command.goto if isinstance(command.goto, Sequence) and not isinstance(command.goto, str) else [command.goto]
        )
        named = [each.node if isinstance(each, Send) else str(each) for each in goto]
        for name in named:
            if name in self._part.others:
                return name
        known = ", ".join(self._part.others) or "none"
        raise AgentError(
            f"The graph of agent {self._context.tools.agent} went to {', '.join(named) or 'nothing'} in its parent "
            f"graph. It may hand over to another agent; there are: {known}."
        )

    def _breakpoint(self, left: StateSnapshot) -> Interrupt:
        """What the person is asked at a static breakpoint: the last that the graph said, if it said anything."""
        checkpoint = left.config["configurable"]["checkpoint_id"]
        value = {"message": self._answer(), "next": [*left.next]}
        return Interrupt.from_ns(value, f"{self._context.tools.agent}:{checkpoint}")
