"""Endings: why a session is over, and telling so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database

Ending = Literal["released", "handed_over", "started_over", "taken", "cleared", "expired"]
"""The agent released the session or handed it over, the person started over, another agent took it, somebody cleared
the lock, or it expired."""


def tell_ended(database: Database, *sessions: str | None) -> None:
    """Tells the watchers of sessions that have ended, each as the functions of the schema give it: a JSON object, or an
    array of them; None is none."""
    for found in filter(None, sessions):
        told = json.loads(found)
        for session in told if isinstance(told, list) else [told]:
            for watcher in database.session_watchers:
                watcher.session_ended(session["agent"], session["why"], session["seconds"])
