"""The loop of an agent: the model thinks and the tools act, until the model answers without calling a tool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite

from moorline_agents import control
from moorline_agents.answering import Answering
from moorline_agents.calling import Calling
from moorline_agents.history import closing, history_channel, last_texts, open_calls, stopped
from moorline_agents.input_checks import InputChecks
from moorline_agents.messages import Message, ToolCall
from moorline_agents.prompt import Prompt
from moorline_agents.run import AgentDeps, AgentHost, Outcome, RunContext, TurnTexts
from moorline_agents.stopping import Stopped
from moorline_agents.summary import Past, Summaries, in_one
from moorline_agents.together import together
from moorline_agents.window import Window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent


class Loop:
    """The two nodes of an agent, and the channels they see."""

    def __init__(self, *, agent: Agent, deps: AgentDeps, host: AgentHost) -> None:
        self._agent = agent
        self._host = host
        others = [other for other in deps.others if other.name != agent.name]
        self._calling = Calling(agent, others=others, tool_timeout=deps.tool_timeout, yes_no=deps.yes_no)
        self._prompt = Prompt(agent, tools=self._calling.tools, tokens=deps.prompt_tokens)
        self._summaries = Summaries(agent, deps)
        self._answering = Answering(agent, deps)
        self._checks = None
        if agent.input_checks:
            names = (agent.name, *agent.aliases)
            self._checks = InputChecks(agent.input_checks, names=names, seconds=deps.tool_timeout)
        self.think_node, self.act_node = agent.entry, f"{agent.name}.act"
        self.earlier_act_nodes = tuple(f"{name}.act" for name in agent.aliases)
        """Where a run goes on that stopped to ask when the agent had an earlier name."""
        self._history, *self._earlier = (f"{name}.history" for name in (agent.name, *agent.aliases))
        self._past, *self._earlier_pasts = (f"{name}.past" for name in (agent.name, *agent.aliases))
        histories = {name: Annotated[list[Message], history_channel()] for name in (self._history, *self._earlier)}
        pasts = dict.fromkeys((self._past, *self._earlier_pasts), Past | None)
        schema: Any = TypedDict  # type checkers accept literal names only
        self.state: type[Any] = schema(f"{agent.name}.state", {"texts": TurnTexts, **histories, **pasts}, total=False)

    async def think(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        context = runtime.context
        enters = await self._enters(context)
        known, past = state.get(self._history, ()), self._past_in(state)
        carried = self._carried(state)
        closed = closing(open_calls(known), context.closed, context.ran) if enters else ()
        new = (*closed, *chain.from_iterable(carried.values()))
        asked = await self._prompt.asked(state.get("texts", ()), context) if enters else ()
        before: Sequence[Message] = [*known, *new]
        kept, settled, frame = before, past, await self._prompt.frame(context)
        if enters:
            with suppress(Stopped):  # which the answer meets as well
                kept, settled = await self._summaries.settle(before, past, frame.room, context)

        async def respond(asked: tuple[Message, ...], cleared: asyncio.Event | None) -> tuple[Message, Window | None]:
            try:
                return await self._answering.answer([*kept, *asked], settled, frame, context, cleared)
            except Stopped:
                return {"role": "assistant", "content": context.telling.said or context.stop.text}, None

        if asked and self._checks is not None:
            asked, (answer, shorter) = await self._checks.respond(asked, context, respond)
        else:
            answer, shorter = await respond(asked, None)
        if shorter is not None:
            settled = {**settled, "most": shorter.size}
        # One update per step, because each is stored as a row.
        update: dict[str, Any] = {self._history: (*new, *asked, answer)}
        if kept is not before:
            update[self._history] = Overwrite([*kept, *asked, answer])
        update |= dict.fromkeys(carried, Overwrite([]))
        moved = [channel for channel in self._earlier_pasts if state.get(channel)]
        update |= dict.fromkeys(moved)
        if moved or settled is not past:
            update[self._past] = settled
        if answer.get("tool_calls"):
            return Command(goto=self.act_node, update=update)
        text = self._answering.text(answer, context)
        outcome = Outcome(text=text, released=self._ended([*before, *asked]))
        following = await self._host.leave(outcome, context)
        return Command(goto=following.node, update={**update, **following.update})

    async def act(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        """Makes the first call of the last answer that has no result yet. One call a step, so that what it gave is in
        the state, and committed, if the next one stops to ask. The order is the one in which the model asked; calls
        that only read are made together with those right behind them that do."""
        context = runtime.context
        continues = await self._enters(context)  # as a run does that has stopped to ask
        carried = self._carried(state)
        moved = tuple(chain.from_iterable(carried.values()))
        history = [*state.get(self._history, ()), *moved]
        calls = open_calls(history)
        # LangGraph gives answers to a step by the order in which it asks: what asks has to run alone then.
        reads = () if continues else self._calling.reads(calls)
        if context.stop.requested and not context.journal.rerunning:
            done = stopped(calls)
        elif len(reads) > 1:
            done = await together(reads, lambda call: self._result(call, history, context))
        else:
            done = (await self._result(calls[0], history, context, resumed=continues),)
        if continues:
            done = await self._prompt.brief(done, context)
        update: dict[str, Any] = {self._history: (*moved, *done), **dict.fromkeys(carried, Overwrite([]))}
        if len(done) < len(calls):
            return Command(goto=self.act_node, update=update)
        handover = control.handed_over([*history, *done])
        if handover is None:
            return Command(goto=self.think_node, update=update)
        if not state.get("texts"):
            # A run that continues after an interrupt does not get the person's texts in its input.
            update["texts"] = last_texts(history)
        outcome = Outcome(
            handoff=handover.to, reason=handover.reason, note=handover.note, released=self._ended(history)
        )
        following = await self._host.leave(outcome, context)
        return Command(goto=following.node, update={**update, **following.update})

    def _past_in(self, state: dict[str, Any]) -> Past:
        pasts = [state[channel] for channel in (*self._earlier_pasts, self._past) if state.get(channel)]
        return pasts[0] if len(pasts) == 1 else in_one(pasts)

    async def _result(
        self, call: ToolCall, history: Sequence[Message], context: RunContext, *, resumed: bool = False
    ) -> Message:
        result = await self._calling.result(call, history, context, resumed=resumed)
        return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result, ensure_ascii=False)}

    def _carried(self, state: dict[str, Any]) -> dict[str, list[Message]]:
        """What the agent knows under its earlier names."""
        return {channel: state[channel] for channel in self._earlier if state.get(channel)}

    def _ended(self, history: Sequence[Message]) -> bool:
        return self._agent.keeps_session and control.session_ended(history)

    async def _enters(self, context: RunContext) -> bool:
        """Whether the agent's part of the turn begins with this node."""
        if context.progress.agent == self._agent.name:
            return False
        context.progress.agent, context.progress.rounds = self._agent.name, 0
        context.telling.agent_started(self._agent.name)
        await self._host.enter(context)
        return True
