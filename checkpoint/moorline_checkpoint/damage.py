"""Damage: rows that cannot be read fail the calls of their own device, with an error of ours."""

from __future__ import annotations

from contextlib import ContextDecorator

import asyncpg

from moorline_migrations.errors import DAMAGED, MoorlineError, StateDamaged

_STATES = ("22", "42804", "P0")
"""The SQLSTATEs and classes with which our own functions meet a row of a wrong shape: the arguments are right."""


class readable(ContextDecorator):  # noqa: N801 - named like what contextlib has; a generator takes four times as long
    """Raises `StateDamaged`, which does not quote the rows, for whatever fails in the block. The block only makes sense
    of rows that were read."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, MoorlineError):
            raise _damaged(error) from error


class sound:  # noqa: N801
    """The same for a statement that calls one of our functions for a device: the function may fail at the rows."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.PostgresError) and str(error.sqlstate).startswith(_STATES):
            raise _damaged(error) from error


def _damaged(error: Exception) -> StateDamaged:
    return StateDamaged(f"{DAMAGED}. The cause: {type(error).__name__}")
