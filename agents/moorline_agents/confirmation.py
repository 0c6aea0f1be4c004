"""What a person is asked before a tool's call runs. Asking them is left to `confirming`."""

from __future__ import annotations

import string
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The question, and the words for yes and no; where they are None, those of the app (`Texts.yes`, `Texts.no`)."""

    question: str
    yes: str | None = None
    no: str | None = None


Asked = str | Confirmation | Literal[False]

Confirm = str | Callable[[Any, Any], Asked | Awaitable[Asked]]
"""What `@tool(confirm=…)` takes: a template with the names of arguments, such as `"Book {service} on {start}?"`, or a
function of the arguments and the `ToolContext`, which may look things up, may refuse with `ToolRefused`, and returns
False for a call that needs no yes: None, which a forgotten `return` gives as well, is an error."""


def check_confirm(confirm: Confirm, arguments: type[BaseModel], tool: str) -> None:
    """Raises `ValueError` for a template that could never be filled, `TypeError` for what is none and no function."""
    if not isinstance(confirm, str):
        if not callable(confirm):
            raise TypeError(f"Tool {tool}: confirm must be a text or a function of (arguments, context).")
        return
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(confirm) if name is not None}
    except ValueError as error:
        raise ValueError(f"Tool {tool}: confirm is no template ({error}).") from error
    unknown = sorted(name for name in names if name.partition(".")[0].partition("[")[0] not in arguments.model_fields)
    if unknown or not confirm.strip():
        raise ValueError(
            f"Tool {tool}: confirm must be a question; {', '.join(unknown) or 'this one'} is none of its arguments "
            f"({', '.join(arguments.model_fields) or 'it has none'})."
        )
