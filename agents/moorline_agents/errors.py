"""What can go wrong with an agent, as the caller of a turn sees it."""

from __future__ import annotations

from moorline_migrations.errors import MoorlineError


class AgentError(MoorlineError):
    """An agent could not finish its turn; nothing of it was kept, so the same message can be sent again."""


class UnknownAgent(MoorlineError):
    """A name that no registered agent has; the message lists the names there are."""
