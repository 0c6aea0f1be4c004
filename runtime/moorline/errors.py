"""Every error that a caller may meet, in one place. Their texts say what to do."""

from moorline_agents.checks import CheckFailed
from moorline_agents.errors import AgentError
from moorline_agents.model_errors import AnswerCutOff, ContextOverflow, ModelError
from moorline_agents.tools import ToolRefused
from moorline_checkpoint.errors import (
    ErasureFailed,
    InvalidDeviceID,
    InvalidMetadata,
    SessionBusy,
    StaleTurn,
    TransactionError,
    TransactionTooLong,
    TurnNotKept,
)
from moorline_migrations.errors import ConfigurationError, MoorlineError, SchemaMismatch, StateDamaged, StoreUnavailable

__all__ = [
    "AgentError",
    "AlreadyLinked",
    "AnswerCutOff",
    "BadExport",
    "CheckFailed",
    "ConfigurationError",
    "ContextOverflow",
    "ErasureFailed",
    "ExportBroken",
    "FileUnavailable",
    "InternalError",
    "InvalidContext",
    "InvalidDeviceID",
    "InvalidMessage",
    "InvalidMetadata",
    "LinkRefused",
    "MessageSetAside",
    "ModelError",
    "MoorlineError",
    "NothingWaits",
    "SchemaMismatch",
    "SessionBusy",
    "StaleTurn",
    "StateDamaged",
    "StoreUnavailable",
    "TooManyTries",
    "ToolRefused",
    "TransactionError",
    "TransactionTooLong",
    "TurnCancelled",
    "TurnNotKept",
    "TurnTimeout",
    "UsageError",
]


class BadExport(MoorlineError, ValueError):
    """The file is no export of Moorline's, is damaged or cut off, or is of a version that this code does not know."""


class ExportBroken(MoorlineError):
    """The database broke an export off after lines of it had gone to standard output. They are no whole export: throw
    them away and export again, or name a file."""

    retryable = True

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return (
            "The export broke off, and what was written of it is not whole: throw it away and export again. An export "
            f"into a file that a replica breaks off is begun again on the primary. The cause: {self.cause}"
        )


class InvalidMessage(MoorlineError, ValueError):
    """The message is empty, too long or not text, or a `Resume` that nothing waits for. Nothing was stored; sending it
    again does not help."""


class FileUnavailable(MoorlineError):
    """A file could not be fetched from its address just now. Nothing was stored; send the message again."""

    retryable = True


class NothingWaits(InvalidMessage):
    """A `Resume` for a question that does not wait: it was answered, or closed by another message. Send a message."""


class InvalidContext(MoorlineError, ValueError):
    """The context names no device, or holds something that is not JSON. Nothing was stored; correct the context."""


class LinkRefused(MoorlineError, ValueError):
    """The code of another device is wrong, was used or has expired; or nothing is left of its conversation. Let that
    device make a new one."""


class AlreadyLinked(LinkRefused):
    """The code is one of the device itself, or of a device that has the same conversation already."""


class TooManyTries(MoorlineError):
    """Too many codes were wrong: of this device, from this address, or in all. Nothing was tried; come back in
    `retry_after` seconds."""

    retryable = True

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"Too many codes were wrong; try again in {self.retry_after:.0f} s."


class UsageError(MoorlineError, RuntimeError):
    """A `Moorline` was used outside its `async with`, or opened while it was already open. Correct the program."""


class InternalError(MoorlineError):
    """Something failed that Moorline does not foresee; its cause says what. Of the turn, only the effects of its tools
    were kept."""


class MessageSetAside(AgentError):
    """The message failed too often. Sending it again does not help; `moorline recover --message` tries it once more."""

    retryable = False

    def _what_stands(self) -> str:
        return "" if self.message_id is None else "Anything its tools have done stands and is not done twice."


class TurnTimeout(MoorlineError, TimeoutError):
    """The turn did not end within its timeout, including waiting. It may still be committed at the last moment: send
    the message again with the error's `message_id`, and allow more time (`timeout`, `MOORLINE_TURN_TIMEOUT`)."""

    retryable = True


class TurnCancelled(MoorlineError):
    """The call was cancelled, and with `on_cancel="release"` its turn was given up. Nobody is left to raise it to: only
    events tell it."""

    retryable = True


class only_ours:  # noqa: N801 - named like what contextlib has; a generator takes four times as long
    """Raises an `InternalError` for whatever fails in the block and is not an error of ours."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, MoorlineError):
            raise InternalError(
                f"Something failed that Moorline does not foresee ({type(error).__name__}); see its cause."
            ) from error
