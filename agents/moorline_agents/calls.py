"""The tool calls of an answer, checked before they are remembered and made.

What a model wrote may be no JSON, too long, too deep, or a name that no tool can have. Servers refuse a history that
holds such a call, so the call is kept in a form that all of them take, with the reason why it is not made: that is its
result.
"""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from moorline_agents.json_limits import parsed
from moorline_agents.messages import Message, ToolCall
from moorline_agents.tools import ToolRefused

MOST_CALLS = 16
"""Calls that one answer may make."""

LONGEST_ARGUMENTS = 65_536
"""Bytes that the arguments of one call may have."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID = re.compile(r"[!-~]{1,8192}")  # some proxies put a signature into it
_LONGEST_ID = 40  # what OpenAI takes


def checked(message: Message) -> Message:
    """An assistant message whose calls all servers take. One that must not be made says why in `refused`.

    Of more than `MOST_CALLS` calls, the first are kept, and one more, which says that no others were made.
    """
    calls = message.get("tool_calls")
    if not calls:
        return message
    taken: set[str] = set()
    kept: list[ToolCall] = []
    for call in calls[: MOST_CALLS + 1]:
        kept.append(_checked(call, taken, surplus=len(kept) == MOST_CALLS))
        taken.add(kept[-1]["id"])
    return {**message, "tool_calls": kept}


def check_made(call: ToolCall) -> None:
    """Raises `ToolRefused` for a call that must not be made."""
    if "refused" in call:
        name = call["function"]["name"]
        raise ToolRefused(f"{name} was not called: {call['refused']}.", code="wrong_arguments")


def arguments_of(text: str) -> tuple[str, str | None]:
    """A call's arguments as the text of a JSON object, and why the call must not be made if they were none."""
    text = text.strip() or "{}"
    if len(text) > LONGEST_ARGUMENTS or len(text.encode(errors="replace")) > LONGEST_ARGUMENTS:
        return "{}", f"its arguments are longer than {LONGEST_ARGUMENTS} bytes"
    try:
        value = parsed(text)
        if isinstance(value, str):  # some servers send the object as a string of JSON
            text, value = value, parsed(value)
    except ValueError as error:
        return "{}", f"its arguments are no JSON that can be used: {error}"
    if value is None:
        return "{}", None
    return (text, None) if isinstance(value, dict) else ("{}", "its arguments are not a JSON object")


def name_of(name: str) -> tuple[str, str | None]:
    """A call's name as all servers take it, and why the call must not be made if it was another."""
    name = name.strip()
    if _NAME.fullmatch(name):
        return name, None
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "_", "there is no tool of that name"


def _checked(call: ToolCall, taken: set[str], *, surplus: bool) -> ToolCall:
    function = call["function"]
    name, unnamed = name_of(function["name"])
    arguments, unusable = arguments_of(function["arguments"])
    too_many = f"an answer may make {MOST_CALLS} calls; this one and all after it were too many" if surplus else None
    refused = too_many or call.get("refused") or unnamed or unusable
    # Results are matched to calls by ID, which some servers leave out or use twice.
    known = _ID.fullmatch(call["id"]) and call["id"] not in taken
    own_id = call["id"] if known and len(call["id"]) <= _LONGEST_ID else f"call_{uuid4().hex}"
    extra: dict[str, Any] = {**call.get("extra", {})}
    if known and own_id != call["id"]:
        extra["id"] = call["id"]
    kept: ToolCall = {"id": own_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    if extra:
        kept["extra"] = extra
    if refused:
        kept["refused"] = refused
    return kept
