"""Output checks: what an agent's model answers is said sentence by sentence, each once it has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from moorline_agents.background import ended
from moorline_agents.checks import Check, Refusal, checked_text
from moorline_agents.messages import ModelAnswer
from moorline_agents.sentences import Part, Sentences

if TYPE_CHECKING:
    from moorline_agents.run import RunContext
    from moorline_agents.telling import OnText

Through = Callable[["OnText"], "OnText"]
"""Given what shows a text, returns what is to get the text instead."""


class OutputChecks:
    """The output checks of an agent."""

    def __init__(self, checks: Sequence[Check], *, agent: str, seconds: float | None) -> None:
        self._checks = checks
        self._agent = agent
        self._seconds = seconds

    async def answer(self, ask: Callable[[Through], Awaitable[ModelAnswer]], context: RunContext) -> ModelAnswer:
        """The answer that `ask` gets, with what the checks have left of its text, which is also what is shown of it.
        If one refuses, the sentence is the answer. The text of an answer that calls tools is not said in the end, and
        stays as it is. Raises `CheckFailed`."""
        writing, telling = self._writing(context), context.telling
        checking = asyncio.create_task(writing.check())
        try:
            answer = await ask(writing.through)
            if answer.message.get("tool_calls"):
                return answer
            content = answer.message["content"] or ""
            if writing.written != content:  # nobody listens, or some of it turned out to be no text
                await ended(checking)
                telling.withdraw()
                writing = self._writing(context)
                writing.add(content)
                checking = asyncio.create_task(writing.check())
            writing.end()
            async with context.stop.ends():
                outcome = await checking
        finally:
            await ended(checking)
        if isinstance(outcome, Refusal):
            telling.withdraw()
            telling.check_refused(outcome.check, "output", outcome.sentence)
            telling.text(outcome.sentence)
            outcome = outcome.sentence
        if outcome == content:
            return answer
        # Its other fields, such as its reasoning, may say what must not be said.
        return replace(answer, message={"role": "assistant", "content": outcome})

    def _writing(self, context: RunContext) -> _Writing:
        tools = replace(context.tools, agent=self._agent)

        async def passed(sentence: str) -> str | Refusal:
            return await checked_text(self._checks, sentence, tools, seconds=self._seconds)

        return _Writing(passed, context.telling.text)


class _Writing:
    """A text that is written, checked and shown, all at the same time."""

    def __init__(self, passed: Callable[[str], Awaitable[str | Refusal]], show: OnText) -> None:
        self._passed = passed
        self._show = show
        self._sentences = Sentences()
        self._written: list[str] = []
        self._parts: asyncio.Queue[Part | None] = asyncio.Queue()

    @property
    def written(self) -> str:
        return "".join(self._written)

    def through(self, show: OnText) -> OnText:
        self._show = show
        return self.add

    def add(self, piece: str) -> None:
        self._written.append(piece)
        self._put(self._sentences.add(piece))

    def end(self) -> None:
        self._put(self._sentences.end())
        self._parts.put_nowait(None)

    async def check(self) -> str | Refusal:
        """The text that has passed, shown as it passes, or why it has not. Nothing is shown behind what is refused."""
        said = ""
        while part := await self._parts.get():
            sentence = await self._passed(part.sentence) if part.sentence else ""
            if isinstance(sentence, Refusal):
                return sentence
            self._show(part.space + sentence)
            said += part.space + sentence
        return said

    def _put(self, parts: Sequence[Part]) -> None:
        for part in parts:
            self._parts.put_nowait(part)
