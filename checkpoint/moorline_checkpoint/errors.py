"""Errors of the checkpointer, its sessions and its turns."""

from moorline_migrations.errors import MoorlineError


class InvalidDeviceID(MoorlineError, ValueError):
    """A device ID that the rules do not accept. The text never repeats the ID."""


class InvalidMetadata(MoorlineError, ValueError):
    """The metadata of a run, or a filter on it, holds what JSON cannot, such as NaN. Nothing was stored."""


class SessionBusy(MoorlineError):
    """Another turn of this device is running and the message does not wait, or as many messages wait as may
    (`MOORLINE_QUEUE_MAX`). Send it again in `retry_after` seconds."""

    retryable = True

    def __init__(self, retry_after: float, *, full: bool = False) -> None:
        super().__init__(retry_after, full)
        self.retry_after = retry_after
        self.full = full
        """Whether as many messages of the device wait as may."""

    def __str__(self) -> str:
        again = "" if self.message_id is None else f" with message_id {self.message_id!r}"
        why = "As many messages of this device wait as may" if self.full else "Another turn of this device is running"
        return f"{why}; send the message again in {self.retry_after:.1f} s{again}."


class ErasureFailed(MoorlineError):
    """A component could not erase what it has of a device, so nothing of the device was erased."""

    def __init__(self, component: str, cause: str) -> None:
        super().__init__(component, cause)
        self.component = component
        """The component whose erase function failed."""
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"The component {self.component!r} could not erase what it has of the device, so nothing was erased; "
            f"fix its erase function, then erase again. The cause: {self.cause}"
        )


class StaleTurn(MoorlineError):
    """The turn was taken over by another process, or its device was erased: its result was not kept."""

    retryable = True

    def _what_stands(self) -> str:
        if self.message_id is None or not self.effects_kept:
            return super()._what_stands()
        return (
            f"What its tools have done stands: sent again with message_id {self.message_id!r}, the message is "
            "finished, and nothing is done twice unless the device was erased."
        )


class TurnNotKept(MoorlineError, ValueError):
    """A conversation cannot be rewound to this turn; the text says why. Nothing was changed."""


class TransactionError(MoorlineError):
    """A tool used its transaction in a way that cannot be kept, or held it too long; what it did there was rolled back.
    The text says what to change in the tool."""


class TransactionTooLong(TransactionError):
    """A tool held its transaction for longer than it may, in seconds; what it did there was rolled back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"A tool held its transaction for more than {self.seconds:g} s; it was rolled back. Do slow work before or "
            "after it."
        )
