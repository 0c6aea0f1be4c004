"""Calling: a call of a model's answer is made, and has a result in every case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, assert_never

from moorline_agents import control
from moorline_agents.asking import perform
from moorline_agents.calls import check_made
from moorline_agents.checks import Check, CheckFailed, Pass, Refuse, Replace, check_name, verdict_of
from moorline_agents.confirming import check_asked, confirmed
from moorline_agents.files import received
from moorline_agents.history import last_files
from moorline_agents.messages import Message, ToolCall
from moorline_agents.questions import Given
from moorline_agents.run import AgentInfo, RunContext
from moorline_agents.toolbox import Toolbox
from moorline_agents.tools import Tool, ToolContext, ToolRefused

if TYPE_CHECKING:
    from moorline_agents.agent import Agent


class Calling:
    """The tools of an agent, and the control tools of the kit."""

    def __init__(
        self, agent: Agent, *, others: Sequence[AgentInfo], tool_timeout: float | None, yes_no: tuple[str, str]
    ) -> None:
        self._name = agent.name
        self._own_names = (agent.name, *agent.aliases)
        self._yes_no = yes_no
        self._keeps_session = agent.keeps_session
        self._others = frozenset(other.name for other in others)
        schemas = []
        if others:
            schemas.append(control.hand_over_schema({other.name: other.description for other in others}))
        if agent.keeps_session:
            schemas.append(control.END_SESSION_SCHEMA)
        self.tools = Toolbox(agent.tools, control=schemas, timeout=tool_timeout)

    async def result(
        self, call: ToolCall, history: Sequence[Message], context: RunContext, *, resumed: bool = False
    ) -> Any:
        """The result of a call of the last answer in the history, as the model is shown it: that of the tool, or why
        it was refused. `resumed`: the call stopped to ask, and goes on with the answer."""
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        context.telling.tool_started(name, call["id"], arguments)
        try:
            result = await self._result(call, history, context, resumed=resumed)
        except ToolRefused as refusal:
            refused = refusal.shown()
            context.telling.tool_finished(name, call["id"], refused=refused)
            return refused
        context.telling.tool_finished(name, call["id"], result=result)
        return result

    async def _result(self, call: ToolCall, history: Sequence[Message], context: RunContext, *, resumed: bool) -> Any:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        check_made(call)
        if name == control.HAND_OVER:
            return self._hand_over(arguments, history)
        if name == control.END_SESSION and self._keeps_session:
            return {"ended": True}
        tool = await self.tools.find(name)
        files = received(last_files(history), context.read_files) or context.tools.files
        answers = [*context.tools.answers] if resumed else []
        tools = replace(context.tools, agent=self._name, files=files, answers=answers, asked=[])
        given, admit = context.given if resumed else None, None
        if tool.check is not None or tool.confirm is not None or given is not None:
            admit = partial(self._admitted, tool, given, context, tools)
        return await perform(tool, call["id"], arguments, context=context, tools=tools, admit=admit)

    async def _admitted(
        self, tool: Tool, given: Given | None, context: RunContext, tools: ToolContext, arguments: str
    ) -> str:
        """The arguments with which the call is made, as JSON; `given` is the answer with which it goes on. Raises
        `ToolRefused` if it is not to be made."""
        if given is not None:
            check_asked(tool, given)
        if tool.check is not None:
            arguments = await self._checked(tool, tool.check, context, tools, arguments)
        if tool.confirm is not None:
            yes = await confirmed(tool, tool.confirm, arguments, tools, words=self._yes_no)
            tools.answers.extend(() if yes is None else (yes,))
        return arguments

    async def _checked(self, tool: Tool, check: Check, context: RunContext, tools: ToolContext, arguments: str) -> str:
        verdict = await verdict_of(check, tool.validated(arguments), tools, seconds=tool.timeout)
        match verdict:
            case Refuse():
                context.telling.check_refused(check_name(check), "tool", verdict.sentence)
                raise ToolRefused(verdict.sentence, code="check_refused")
            case Replace():
                return _replaced(tool, check, verdict.value)
            case Pass():
                return arguments
            case _:
                assert_never(verdict)

    def reads(self, calls: Sequence[ToolCall]) -> Sequence[ToolCall]:
        """The first of the calls as far as they only read, so that they can be made at the same time."""
        return [*takewhile(self._reads, calls)]

    def _reads(self, call: ToolCall) -> bool:
        tool = self.tools.get(call["function"]["name"])
        alone = tool is None or tool.effect != "none" or tool.confirm is not None
        return not alone and "refused" not in call

    def _hand_over(self, arguments: str, history: Sequence[Message]) -> dict[str, str]:
        earlier = control.handed_over(history)
        if earlier is not None:
            raise ToolRefused(
                f"The conversation goes to {earlier.to} already; this second hand-over does not count.",
                code="already_handed_over",
            )
        target = control.hand_over_target(control.named_agent(arguments), self._others, own_names=self._own_names)
        return {control.HANDED_OVER: target}


def _replaced(tool: Tool, check: Check, value: Any) -> str:
    """Arguments that a check gave instead of the model's, as JSON that the tool takes."""
    if not isinstance(value, tool.arguments):
        kind = type(value).__name__
        raise CheckFailed(
            f"Check {check_name(check)} replaced the arguments of {tool.name} with {kind}; it needs "
            f"{tool.arguments.__name__}."
        )
    arguments = value.model_dump_json(round_trip=True)
    try:
        tool.validated(arguments)
    except ToolRefused as refusal:
        raise CheckFailed(
            f"Check {check_name(check)} replaced the arguments of {tool.name} with some that it does not take."
        ) from refusal
    return arguments
