"""Confirming: a tool's call runs only with a person's yes to exactly its arguments."""

from __future__ import annotations

import asyncio
import inspect

from pydantic import BaseModel

from moorline_agents.confirmation import Confirm, Confirmation
from moorline_agents.questions import Given, Question, ask, digest, folded
from moorline_agents.tools import Tool, ToolContext, ToolRefused


async def confirmed(
    tool: Tool, confirm: Confirm, raw_arguments: str, context: ToolContext, *, words: tuple[str, str]
) -> Given | None:
    """Asks the person about the call; the run stops there. When it goes on, their yes; None if it needs none. Raises
    `ToolRefused` for anything else, and for arguments that do not fit.

    The yes is bound to the tool and exactly these arguments; if the question was made by looking things up, to its
    words, too. `words` are the app's for yes and no.
    """
    arguments = tool.validated(raw_arguments)
    told = await _question(tool, confirm, arguments, context)
    if told is None:
        return None
    about = {"tool": tool.name, "arguments": arguments.model_dump(mode="json")}
    call = digest(about if isinstance(confirm, str) else {**about, "question": told.question})
    options = (told.yes or words[0], told.no or words[1])
    question = Question(text=told.question, options=options, confirms=call)
    given = ask(question)
    while given.asked is not None and given.confirms != call:
        given = ask(question)  # that was the answer to another question
    if not _agrees(given, yes=options[0]):
        raise _not_confirmed(tool, given)
    return given


def check_asked(tool: Tool, given: Given) -> None:
    """Raises `ToolRefused` for a no to the call with which a run goes on, and for any answer about it if the tool asks
    no longer."""
    if given.confirms is not None and not given.agrees:
        raise _not_confirmed(tool, given)
    if given.confirms is not None and tool.confirm is None:
        raise ToolRefused(
            f"{tool.name} was not run: it has changed since the person was asked about it. Call it again if they still "
            "want it.",
            code="question_changed",
        )


def _not_confirmed(tool: Tool, given: Given) -> ToolRefused:
    return ToolRefused(
        f"{given.by or 'The person'} did not agree, so {tool.name} was not run and nothing has changed. Ask what they "
        "want instead.",
        code="not_confirmed",
    )


def _agrees(given: Given, *, yes: str) -> bool:
    if given.asked is not None:
        return given.agrees
    # The run was continued without a manager, which knows what was asked.
    return given.answer is True or (isinstance(given.answer, str) and folded(given.answer) == folded(yes))


async def _question(tool: Tool, confirm: Confirm, arguments: BaseModel, context: ToolContext) -> Confirmation | None:
    if isinstance(confirm, str):
        values = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        return Confirmation(question=confirm.format(**values))
    deadline = asyncio.timeout(tool.timeout)
    try:
        async with deadline:
            made = confirm(arguments, context)
            told = await made if inspect.isawaitable(made) else made
    except TimeoutError:
        if not deadline.expired():
            raise
        raise ToolRefused(
            f"What {tool.name} has to ask the person first could not be found out within {tool.timeout:g} s; nothing "
            "has changed. Tell the person, or try again later.",
            code="timed_out",
        ) from None
    if told is False:
        return None
    if not isinstance(told, str | Confirmation):
        kind = type(told).__name__
        raise TypeError(
            f"confirm of {tool.name} returned {kind}, not a text, a Confirmation, or False for no question."
        )
    return Confirmation(question=told) if isinstance(told, str) else told
