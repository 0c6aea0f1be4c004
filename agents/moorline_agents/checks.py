"""Checks: functions that let a text or a call's arguments pass, refuse them, or put something else in their place.

This module says what a check is and runs one. Whose checks run when is left to `input_checks`, `output_checks` and
`calling`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from moorline_agents.errors import AgentError
from moorline_agents.plain_json import whole_text
from moorline_migrations.errors import MoorlineError

if TYPE_CHECKING:
    from moorline_agents.tools import ToolContext


@dataclass(frozen=True, slots=True)
class Pass:
    """It may go on as it is."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """It goes no further. The sentence is what the person reads instead, or, of a call, what the model is told.

    Raises `ValueError` for a sentence that says nothing.
    """

    sentence: str

    def __post_init__(self) -> None:
        if not isinstance(self.sentence, str) or not self.sentence.strip():
            raise ValueError("A refusal must say something: Refuse('I cannot talk about that.').")


@dataclass(frozen=True, slots=True)
class Replace:
    """It goes on with this value instead: a text for a text, arguments of the same model for those of a call."""

    value: Any


Verdict = Pass | Refuse | Replace

Check = Callable[[Any, "ToolContext"], Coroutine[Any, Any, Verdict]]
"""An async function of what is checked and of what the server knows about the turn."""


class CheckFailed(AgentError):
    """A check raised, took too long, or returned no verdict. What it was to check went no further, and nothing of the
    turn was kept but the effects of its tools. Correct the check; then the message can be sent again."""


class Refusal(NamedTuple):
    """A check has refused."""

    check: str
    sentence: str


def check_name(check: Check) -> str:
    """The name under which its refusals are told and counted: that of the function."""
    return str(getattr(check, "__name__", type(check).__name__))


def validate_checks(checks: Sequence[Check], owner: str) -> None:
    """Raises `TypeError` for what cannot be a check of `owner`."""
    for check in checks:
        called = check if inspect.isroutine(check) else getattr(check, "__call__", None)  # noqa: B004 - it may be async
        if not inspect.iscoroutinefunction(called):
            raise TypeError(
                f"{owner}: {check_name(check)} cannot be a check. Write an `async` function of what is checked and a "
                "ToolContext that returns Pass(), Refuse(…) or Replace(…)."
            )


async def verdict_of(check: Check, value: Any, context: ToolContext, *, seconds: float | None) -> Verdict:
    """What the check says. Raises `CheckFailed` if it does not say it in so many seconds; errors of ours, such as those
    of the store or of a model, stay as they are."""
    name, deadline = check_name(check), asyncio.timeout(seconds)
    try:
        async with deadline:
            verdict = await check(value, context)
    except MoorlineError:
        raise
    except Exception as error:
        what = f"did not end within {seconds:g} s" if deadline.expired() else f"raised {type(error).__name__}"
        raise CheckFailed(f"Check {name} of agent {context.agent} {what}; see its cause.") from error
    if not isinstance(verdict, Pass | Refuse | Replace):
        raise CheckFailed(
            f"Check {name} of agent {context.agent} returned {type(verdict).__name__}, not Pass, Refuse or Replace."
        )
    return verdict


async def checked_text(
    checks: Sequence[Check], text: str, context: ToolContext, *, seconds: float | None
) -> str | Refusal:
    """What is left of a text when each of the checks has seen what those before it left. Raises as `verdict_of`."""
    for check in checks:
        match await verdict_of(check, text, context, seconds=seconds):
            case Refuse(sentence):
                return Refusal(check_name(check), sentence)
            case Replace(str() as other):
                text = whole_text(other)
            case Replace(other):
                kind = type(other).__name__
                raise CheckFailed(f"Check {check_name(check)} of agent {context.agent} replaced a text with {kind}.")
    return text
