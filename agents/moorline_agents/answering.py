"""Answering: an agent's model is asked, or an earlier run's answer is recalled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from moorline_agents.asking import ask
from moorline_agents.calls import checked
from moorline_agents.errors import AgentError
from moorline_agents.messages import Message, ModelAnswer
from moorline_agents.model_errors import AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.output_checks import OutputChecks
from moorline_agents.prompt import Frame
from moorline_agents.run import AgentDeps, RunContext
from moorline_agents.structured import StructuredAnswer, StructuredAnswers
from moorline_agents.summary import Past
from moorline_agents.window import Window

if TYPE_CHECKING:
    from moorline_agents.agent import Agent

logger = logging.getLogger("moorline.agents")

_NO_ROOM = (
    "The agent's instructions, its tools and one message are too long for the model. Shorten them, or use a model with "
    "more room (OPENAI_MODEL)."
)


class Answering:
    """Gets the answers of an agent's model."""

    def __init__(self, agent: Agent, deps: AgentDeps) -> None:
        self._name = agent.name
        self._names = (agent.name, *agent.aliases)
        self._model = agent.model or deps.model
        self._fallbacks = agent.fallbacks
        self._options = agent.options
        self._rounds = deps.tool_rounds
        self._checks = self._structured = None
        if agent.output is not None:
            self._structured = StructuredAnswers(
                agent.output, agent.output_checks, agent=agent.name, seconds=deps.tool_timeout
            )
        elif agent.output_checks:
            self._checks = OutputChecks(agent.output_checks, agent=agent.name, seconds=deps.tool_timeout)

    async def answer(
        self,
        history: Sequence[Message],
        past: Past,
        frame: Frame,
        context: RunContext,
        cleared: asyncio.Event | None = None,
    ) -> tuple[Message, Window | None]:
        """The answer, and what the model was shown of the history if it had no room for more. Nothing of the answer is
        remembered before it is `cleared`. Raises `ModelError`, `CheckFailed`, `Stopped`, and `AgentError` if it calls
        tools again and again."""
        progress = context.progress
        recalled = context.journal.recall(*self._names)
        if recalled is not None:
            progress.rounds += 1
            return recalled, None
        tired = progress.rounds >= self._rounds
        window = frame.window(history, past)
        answer, shown = await self._complete(window, past, frame, context, tired=tired)
        message = checked(answer.message)
        calls = bool(message.get("tool_calls"))
        if tired and calls:
            raise AgentError(
                f"The model of agent {self._name} called tools {self._rounds} times without answering. "
                "If it needs more, raise MOORLINE_TOOL_ROUNDS."
            )
        if cleared is not None:
            await cleared.wait()
        if isinstance(answer, StructuredAnswer):
            progress.output = answer.output
        if calls:
            progress.rounds += 1
            context.telling.withdraw()
            context.journal.note(self._name, message)
        return message, None if shown is window else shown

    def text(self, answer: Message, context: RunContext) -> str:
        """What a person reads of an answer."""
        if self._structured is not None and context.progress.output is not None:
            return self._structured.text(context.progress.output)
        return answer["content"] or ""

    async def _complete(
        self, shown: Window, past: Past, frame: Frame, context: RunContext, *, tired: bool
    ) -> tuple[ModelAnswer, Window]:
        """The model's answer, and what it was shown in the end: less than at first if it had no room for that."""
        cut_off = False
        while True:
            asking = partial(
                ask,
                self._model,
                context=context,
                agent=self._name,
                tools=frame.tools,
                tool_choice="none" if tired and frame.tools else None,
                options=self._options,
                fallbacks=self._fallbacks,
            )
            try:
                answer = await self._checked(asking, frame.messages(shown, past), context)
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
                "The model of agent %s has no room for %s tokens; it is shown %s.",
                self._name,
                shown.size,
                shorter.size,
            )
            context.telling.withdraw()
            shown = shorter

    async def _checked(
        self, asking: Callable[..., Awaitable[ModelAnswer]], messages: Sequence[Message], context: RunContext
    ) -> ModelAnswer:
        """The answer as it has to be, and as the agent's output checks leave it."""
        if self._structured is not None:
            return await self._structured.answer(asking, messages, context)
        if self._checks is not None:
            return await self._checks.answer(lambda through: asking(messages, through=through), context)
        return await asking(messages)
