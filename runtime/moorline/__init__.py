"""Moorline keeps every conversation moored to its agent.

from moorline import run_manager
reply = await run_manager("I want to schedule", {"device_id": device_id, "message_id": webhook_id})
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moorline.context import Resume, TurnContext
    from moorline.default import run_manager, stream_manager
    from moorline.events import Event, TextDelta, TurnDone, TurnFailed
    from moorline.reply import Interrupt, Reply
    from moorline.runtime import Moorline
    from moorline.settings import Settings

__all__ = [
    "Event",
    "Interrupt",
    "Moorline",
    "Reply",
    "Resume",
    "Settings",
    "TextDelta",
    "TurnContext",
    "TurnDone",
    "TurnFailed",
    "run_manager",
    "stream_manager",
]

_HOMES = {
    "Event": "events",
    "Interrupt": "reply",
    "Moorline": "runtime",
    "Reply": "reply",
    "Resume": "context",
    "Settings": "settings",
    "TextDelta": "events",
    "TurnContext": "context",
    "TurnDone": "events",
    "TurnFailed": "events",
    "run_manager": "default",
    "stream_manager": "default",
}


def __getattr__(name: str) -> Any:
    """Imports a name from its module when it is first asked for: LangGraph takes a second that many commands, and a
    process that only reads settings, need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"moorline.{_HOMES[name]}"), name)
