"""Every error that Moorline raises on purpose, to be imported from one place. Their texts say what to do."""

from moorline_agents.errors import AgentError, UnknownAgent
from moorline_checkpoint.errors import InvalidDeviceID, SessionBusy, StaleTurn
from moorline_migrations.errors import ConfigurationError, MoorlineError, SchemaMismatch, StoreUnavailable

__all__ = [
    "AgentError",
    "ConfigurationError",
    "InvalidContext",
    "InvalidDeviceID",
    "InvalidMessage",
    "MoorlineError",
    "SchemaMismatch",
    "SessionBusy",
    "StaleTurn",
    "StoreUnavailable",
    "TurnTimeout",
    "UnknownAgent",
]


class InvalidMessage(MoorlineError, ValueError):
    """The message is empty, too long or no text. Nothing was stored; sending it again does not help."""


class InvalidContext(MoorlineError, ValueError):
    """The context names no device, or holds what is not JSON. Nothing was stored; correct what is passed."""


class TurnTimeout(MoorlineError, TimeoutError):
    """The turn did not end within its timeout, waiting included. Nothing of it was kept: send the message
    again with the same `message_id`, or allow it more time (`timeout`, `MOORLINE_TURN_TIMEOUT`)."""
