"""What the person is asked before the scheduling agent changes anything: what the change would come to, found out by
making it in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from moorline_agents.confirmation import Confirmation
from moorline_agents.scheduling.repository import Appointment
from moorline_agents.scheduling.wording import Wording
from moorline_agents.tools import Connection, ToolContext

ArgumentsT = TypeVar("ArgumentsT")

Change = Callable[[ArgumentsT, ToolContext], Coroutine[Any, Any, tuple[Appointment | None, Appointment]]]
"""Makes a change, and returns the appointment before and after it; the same one twice if there was nothing to change.
Raises `ToolRefused` if it cannot be made."""


class _NotMade(Exception):
    """Rolls the transaction back."""


def asking(
    change: Change[ArgumentsT], text: str, wording: Wording
) -> Callable[[ArgumentsT, ToolContext], Coroutine[Any, Any, Confirmation | Literal[False]]]:
    """What a tool that makes the change has as its `confirm`. A change that cannot be made is refused, as the tool
    would, and one that changes nothing needs no yes."""

    async def ask(arguments: ArgumentsT, context: ToolContext) -> Confirmation | Literal[False]:
        @asynccontextmanager
        async def rolled_back() -> AsyncIterator[Connection]:
            try:
                async with context.transaction() as connection:
                    yield connection
                    raise _NotMade  # noqa: TRY301 - only an error rolls a block back
            except _NotMade:
                pass

        before, after = await change(arguments, replace(context, transaction=rolled_back))
        if before == after:
            return False
        told = {**wording.of(after), "before": wording.of(before or after)["when"]}
        return Confirmation(question=text.format(**told), yes=wording.yes, no=wording.no)

    return ask
