"""Damage: rows that cannot be read fail the calls of their own device, with an error of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from moorline_migrations.errors import DAMAGED, MoorlineError, StateDamaged

_STATES = ("22", "42804", "P0")
"""The SQLSTATEs and classes with which our own functions meet a row of a wrong shape: the arguments are right."""


@contextmanager
def readable() -> Iterator[None]:
    """Raises `StateDamaged`, which does not quote the rows, for whatever fails in the block. The block only makes sense
    of rows that were read."""
    try:
        yield
    except MoorlineError:
        raise
    except Exception as error:
        raise _damaged(error) from error


@contextmanager
def sound() -> Iterator[None]:
    """The same for a statement that calls one of our functions for a device: the function may fail at the rows."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if not str(error.sqlstate).startswith(_STATES):
            raise
        raise _damaged(error) from error


def _damaged(error: Exception) -> StateDamaged:
    return StateDamaged(f"{DAMAGED}. The cause: {type(error).__name__}")
