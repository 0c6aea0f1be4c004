"""Every error that a caller may meet, to be imported from one place. Their texts say what to do."""

from moorline_agents.errors import AgentError
from moorline_agents.model_errors import ModelError
from moorline_agents.tools import ToolRefused
from moorline_checkpoint.errors import ErasureFailed, InvalidDeviceID, SessionBusy, StaleTurn, TransactionError
from moorline_migrations.errors import ConfigurationError, MoorlineError, SchemaMismatch, StoreUnavailable

__all__ = [
    "AgentError",
    "ConfigurationError",
    "ErasureFailed",
    "InvalidContext",
    "InvalidDeviceID",
    "InvalidMessage",
    "MessageSetAside",
    "ModelError",
    "MoorlineError",
    "SchemaMismatch",
    "SessionBusy",
    "StaleTurn",
    "StoreUnavailable",
    "ToolRefused",
    "TransactionError",
    "TurnTimeout",
    "UsageError",
]


class InvalidMessage(MoorlineError, ValueError):
    """The message is empty, too long or no text. Nothing was stored; sending it again does not help."""


class InvalidContext(MoorlineError, ValueError):
    """The context names no device, or holds what is not JSON. Nothing was stored; correct what is passed."""


class UsageError(MoorlineError, RuntimeError):
    """A `Moorline` was used outside of its `async with`, or opened while it was open. Correct the program."""


class MessageSetAside(AgentError):
    """The message failed too often. Sending it again does not help: `moorline recover --message` tries it once more."""

    retryable = False

    def _what_stands(self) -> str:
        return "" if self.message_id is None else "What its tools may have done stands, and is not done twice."


class TurnTimeout(MoorlineError, TimeoutError):
    """The turn did not end within its timeout, waiting included. It may still be committed at the last moment: send the
    message again with the error's `message_id`, and allow it more time (`timeout`, `MOORLINE_TURN_TIMEOUT`)."""

    retryable = True
