"""Moorline keeps every conversation moored to its agent.

    from moorline import run_manager
    reply = await run_manager("I want to schedule", {"device_id": device_id, "message_id": webhook_id})
"""

from moorline.context import Resume, TurnContext
from moorline.default import run_manager, stream_manager
from moorline.reply import Interrupt, Reply
from moorline.runtime import Moorline
from moorline.settings import Settings
from moorline.streaming import Event, TextDelta, TurnDone, TurnFailed

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
