"""Watching: how the checkpointer says how its statements and session operations go. By default nobody watches."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable


class Statement(Protocol):
    """A statement on its way to the database and back."""

    def grouped(self, size: int) -> None:
        """It went out together with those of other tasks; together they were `size`."""


class Tracing(Protocol):
    """Follows the statements of a task. Nothing raises or waits."""

    def statement(self, name: str) -> AbstractContextManager[Statement]:
        """The block is one statement as its task sees it, with the wait for a connection and all that is sent again. It
        has the name of a statement of ours, or the first word of somebody else's SQL; no parameters."""


@runtime_checkable
class SessionWatcher(Protocol):
    """Is told what becomes of session locks. No method raises or waits."""

    def session_operation_failed(self, operation: str, error: Exception) -> None:
        """A retrieval, setting, clearing, cleanup or listing of locks failed."""

    def session_ended(self, agent: str, why: str, seconds: float) -> None:
        """A session has ended, after so many seconds; told once, in the process that ended it or found it expired.
        `why` is one of `Ending`."""

    def sessions_cleaned_up(self, count: int) -> None:
        """A cleanup has dropped so many expired locks."""


class LockWatcher(Protocol):
    """Is told which devices' locks may have changed, in turns and outside, by this process. Nothing raises or waits."""

    def lock_changed(self, device_id: str) -> None:
        """The lock in the device's row may be another one, or live longer, than before."""


class Untraced:
    """Follows nothing."""

    def statement(self, name: str) -> AbstractContextManager[Statement]:  # noqa: ARG002 - as the protocol's
        return _UNTRACED_STATEMENT


class _UntracedStatement:
    def grouped(self, size: int) -> None:
        pass


_UNTRACED_STATEMENT = nullcontext(_UntracedStatement())
UNTRACED = Untraced()

_FIRST_WORD = re.compile(r"\s*([A-Za-z]+)")


def first_word(sql: str) -> str:
    """The first word of a text of SQL, which holds no values, in capitals."""
    found = _FIRST_WORD.match(sql)
    return "SQL" if found is None else found[1].upper()
