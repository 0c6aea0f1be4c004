"""Input checks: what the person says is checked while an agent's model thinks about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moorline_agents.background import ended
from moorline_agents.checks import Check, CheckFailed, Refusal, checked_text
from moorline_agents.messages import Message
from moorline_agents.stopping import Stopped

if TYPE_CHECKING:
    from moorline_agents.run import RunContext
    from moorline_agents.window import Window

REFUSED = "(The person's message was refused and is not shown.)"
"""What stands in an agent's history for what a check has refused, or could not finish checking."""

Answered = tuple[Message, "Window | None"]
"""An answer, and what the model was shown of the history."""

Respond = Callable[[tuple[Message, ...], asyncio.Event | None], Coroutine[Any, Any, Answered]]
"""Gets the answer to these messages of the person; it decides nothing before the event, if there is one, is set."""


class InputChecks:
    """The input checks of an agent."""

    def __init__(self, checks: Sequence[Check], *, names: Sequence[str], seconds: float | None) -> None:
        self._checks = checks
        self._agent = names[0]
        self._verdicts = tuple(f"{name}.check" for name in names)
        self._seconds = seconds

    async def respond(
        self, asked: tuple[Message, ...], context: RunContext, respond: Respond
    ) -> tuple[tuple[Message, ...], Answered]:
        """The person's messages as the agent's history keeps them, and the answer to them. The checks run beside
        `respond`; none of its text is shown, and it calls no tool, before all have passed. Raises `CheckFailed`."""
        journal = context.journal
        if journal.rerunning:  # what follows in it was done once all had passed
            noted = journal.recall(*self._verdicts) if journal.recalls(*self._verdicts) else None
            allowed = asked if noted is None else _with_text(asked, noted["content"] or "")
            return allowed, await respond(allowed, None)
        text = "\n\n".join(message["content"] or "" for message in asked)
        try:
            outcome = await self._beside(text, asked, context, respond)
        except Stopped:
            return _refused(asked), ({"role": "assistant", "content": context.stop.text}, None)
        if isinstance(outcome, Refusal):
            context.telling.check_refused(outcome.check, "input", outcome.sentence)
            context.telling.text(outcome.sentence)
            return _refused(asked), ({"role": "assistant", "content": outcome.sentence}, None)
        if isinstance(outcome, str):
            allowed = _with_text(asked, outcome)
            journal.note(self._verdicts[0], {"role": "user", "content": outcome})
            return allowed, await respond(allowed, None)
        return asked, outcome

    async def _beside(
        self, text: str, asked: tuple[Message, ...], context: RunContext, respond: Respond
    ) -> Answered | Refusal | str:
        """The answer if all checks let the text pass as it is; otherwise the refusal, or the text instead of it."""
        cleared, telling = asyncio.Event(), context.telling
        checking = asyncio.create_task(self._checked(text, context))
        answering: asyncio.Task[Answered] | None = None
        telling.hold()
        try:
            await asyncio.sleep(0)
            if not checking.done():  # a check that need not wait decides before the model is asked
                answering = asyncio.create_task(respond(asked, cleared))
                await asyncio.wait([checking, answering], return_when=asyncio.FIRST_COMPLETED)
            passed = await checking
            if passed != text:
                return passed
            cleared.set()
            telling.release()
            return await (respond(asked, None) if answering is None else answering)
        finally:
            await ended(checking, answering)
            if not cleared.is_set():
                telling.withdraw()
                telling.release()

    async def _checked(self, text: str, context: RunContext) -> str | Refusal:
        tools = replace(context.tools, agent=self._agent)
        async with context.stop.ends():
            passed = await checked_text(self._checks, text, tools, seconds=self._seconds)
        if isinstance(passed, str) and text.strip() and not passed.strip():
            raise CheckFailed(f"A check of agent {self._agent} replaced what the person said with nothing.")
        return passed


def _with_text(asked: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    """The messages of a turn as one with this text, and with all their files."""
    files = [note for message in asked for note in message.get("files", ())]
    return ({**asked[0], "content": text, "files": files},) if files else ({**asked[0], "content": text},)


def _refused(asked: tuple[Message, ...]) -> tuple[Message, ...]:
    """What stands in their place, without files."""
    message: Message = {**asked[0], "content": REFUSED}
    message.pop("files", None)
    return (message,)
