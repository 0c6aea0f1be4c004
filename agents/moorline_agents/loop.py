"""The loop of an agent: the model thinks and the tools act, until the model answers without calling a tool."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langgraph.runtime import Runtime
from langgraph.types import Command, Overwrite

from moorline_agents import control
from moorline_agents.asking import ask, perform
from moorline_agents.calls import check_made, checked
from moorline_agents.errors import AgentError
from moorline_agents.history import closing, history_channel, last_texts, open_calls, stopped
from moorline_agents.messages import Message, ModelAnswer, ToolCall
from moorline_agents.model_errors import AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.run import AgentDeps, AgentHost, Outcome, RunContext, TurnTexts
from moorline_agents.stopping import Stopped
from moorline_agents.tools import Tool, ToolRefused
from moorline_agents.unfinished import unfinished_note
from moorline_agents.window import Window, window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent

logger = logging.getLogger("moorline.agents")

_NO_ROOM = (
    "The agent's instructions, its tools and one message are too long for the model. Shorten them, or use a model with "
    "more room (OPENAI_MODEL)."
)


class Loop:
    """The two nodes of an agent, and the channels they see."""

    def __init__(self, *, agent: Agent, deps: AgentDeps, host: AgentHost) -> None:
        self._agent = agent
        self._host = host
        self._model = agent.model or deps.model
        self._rounds = deps.tool_rounds
        self._room = deps.history_chars
        self._tools = {tool.name: tool for tool in agent.tools}
        others = tuple(other for other in deps.others if other.name != agent.name)
        self._others = frozenset(other.name for other in others)
        self._schemas = [tool.schema for tool in agent.tools]
        if others:
            self._schemas.append(control.hand_over_schema({other.name: other.description for other in others}))
        if agent.keeps_session:
            self._schemas.append(control.END_SESSION_SCHEMA)
        self.think_node, self.act_node = agent.entry, f"{agent.name}.act"
        self._names = (agent.name, *agent.aliases)
        self._history, *self._earlier = (f"{name}.history" for name in self._names)
        histories = {name: Annotated[list[Message], history_channel()] for name in (self._history, *self._earlier)}
        schema: Any = TypedDict  # type checkers accept literal names only
        self.state: type[Any] = schema(f"{agent.name}.state", {"texts": TurnTexts, **histories}, total=False)

    async def think(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        context = runtime.context
        known = state.get(self._history, ())
        closed: tuple[Message, ...] = ()
        asked: tuple[Message, ...] = ()
        if await self._enters(context):
            closed = closing(open_calls(known))
            asked = tuple({"role": "user", "content": text} for text in state.get("texts", ()))
        carried = {channel: state[channel] for channel in self._earlier if state.get(channel)}
        new = (*closed, *chain.from_iterable(carried.values()), *asked)
        try:
            answer, shown = await self._answer([*known, *new], context)
        except Stopped:
            answer, shown = {"role": "assistant", "content": context.telling.said or context.stop.text}, None
        # One update per step, because each is stored as a row.
        update: dict[str, Any] = {self._history: (*new, answer)}
        if shown is not None and shown.cut:
            update[self._history] = Overwrite([*shown.messages, answer])
        update |= dict.fromkeys(carried, Overwrite([]))
        if answer.get("tool_calls"):
            return Command(goto=self.act_node, update=update)
        outcome = Outcome(text=answer["content"] or "", released=self._ended([*known, *new]))
        return Command(goto=await self._host.leave(outcome, context), update=update)

    async def _answer(self, history: Sequence[Message], context: RunContext) -> tuple[Message, Window | None]:
        """The answer, and what the model was shown of the history; None if it was not asked."""
        progress = context.progress
        recalled = context.journal.recall(*self._names)
        if recalled is not None:
            progress.rounds += 1
            return recalled, None
        tired = progress.rounds >= self._rounds
        answer, shown = await self._complete(window(history, self._room), context, tired=tired)
        message = checked(answer.message)
        calls = bool(message.get("tool_calls"))
        if tired and calls:
            raise AgentError(
                f"The model of agent {self._agent.name} called tools {self._rounds} times without answering. "
                "If it needs more, raise MOORLINE_TOOL_ROUNDS."
            )
        if calls:
            progress.rounds += 1
            context.telling.withdraw()
            context.journal.note(self._agent.name, message)
        return message, shown

    async def _complete(self, shown: Window, context: RunContext, *, tired: bool) -> tuple[ModelAnswer, Window]:
        """The model's answer, and what it was shown in the end: less than at first if it had no room for that."""
        system = self._system(context)
        cut_off = False
        while True:
            try:
                answer = await ask(
                    self._model,
                    [system, *shown.messages],
                    context=context,
                    agent=self._agent.name,
                    tools=self._schemas,
                    tool_choice="none" if tired and self._schemas else None,
                )
            except ContextOverflow as overflow:
                shorter = shown.shorter(overflow.limit)
                if shorter is None:
                    raise ModelError(_NO_ROOM, retryable=False) from overflow
            except AnswerCutOff:
                # Perhaps the conversation left no more room for it. If it is cut off again, it is too long in any case.
                shorter = None if cut_off else shown.shorter(None)
                if shorter is None:
                    raise
                cut_off = True
            else:
                return answer, shown
            logger.info(
                "The model of agent %s has no room for %s characters; it is shown %s.",
                self._agent.name,
                shown.size,
                shorter.size,
            )
            context.telling.withdraw()
            shown = shorter

    async def act(self, state: dict[str, Any], runtime: Runtime[RunContext]) -> Command[str]:
        """Makes the first call of the last answer that has no result yet. One call a step, so that what it gave is in
        the state, and committed, if the next one stops to ask. The order is the one in which the model asked."""
        context = runtime.context
        await self._enters(context)  # a run that continues after an interrupt begins here
        history = state[self._history]
        call, *more = open_calls(history)
        if context.stop.requested and not context.journal.rerunning:
            done, more = stopped([call, *more]), []
        else:
            result = json.dumps(await self._told_result(call, history, context), ensure_ascii=False)
            done = ({"role": "tool", "tool_call_id": call["id"], "content": result},)
        update: dict[str, Any] = {self._history: done}
        if more:
            return Command(goto=self.act_node, update=update)
        handover = control.handed_over([*history, *done])
        if handover is None:
            return Command(goto=self.think_node, update=update)
        if not state.get("texts"):
            # A run that continues after an interrupt does not get the person's texts in its input.
            update["texts"] = last_texts(history)
        outcome = Outcome(handoff=handover.to, reason=handover.reason, released=self._ended(history))
        return Command(goto=await self._host.leave(outcome, context), update=update)

    async def _told_result(self, call: ToolCall, history: Sequence[Message], context: RunContext) -> Any:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        context.telling.tool_started(name, call["id"], arguments)
        try:
            result = await self._result(call, history, context)
        except ToolRefused as refusal:
            refused = refusal.shown()
            context.telling.tool_finished(name, call["id"], refused=refused)
            return refused
        context.telling.tool_finished(name, call["id"], result=result)
        return result

    async def _result(self, call: ToolCall, history: Sequence[Message], context: RunContext) -> Any:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        check_made(call)
        if name == control.HAND_OVER:
            return self._hand_over(arguments, history)
        if name == control.END_SESSION and self._agent.keeps_session:
            return {"ended": True}
        tools = replace(context.tools, agent=self._agent.name)
        return await perform(self._tool(name), call["id"], arguments, context=context, tools=tools)

    def _hand_over(self, arguments: str, history: Sequence[Message]) -> dict[str, str]:
        earlier = control.handed_over(history)
        if earlier is not None:
            raise ToolRefused(
                f"The conversation goes to {earlier.to} already; this second hand-over does not count.",
                code="already_handed_over",
            )
        return {control.HANDED_OVER: control.hand_over_target(arguments, self._others)}

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

    def _tool(self, name: str) -> Tool:
        if name not in self._tools:
            known = ", ".join(self._tools) or "none"
            raise ToolRefused(f"There is no tool {name}. The tools are: {known}.", code="unknown_tool")
        return self._tools[name]

    def _system(self, context: RunContext) -> Message:
        instructions = self._agent.instructions
        told = instructions if isinstance(instructions, str) else instructions(context.tools)
        # Not in the history: once that message is answered, its own turn says what was done.
        note = unfinished_note(context.unfinished, names=self._names, tools=self._tools)
        return {"role": "system", "content": f"{told}\n\n{note}" if note else told}
