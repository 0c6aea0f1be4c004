"""How an erasure fails."""

from __future__ import annotations

import asyncpg

from moorline_checkpoint.errors import ErasureFailed
from moorline_migrations.errors import without_values

_COMPONENT_FAILED = "ML003"
"""The SQLSTATE by which moorline_erase_everywhere says that a component could not erase what it has."""


class erasing:  # noqa: N801 - see `damage.readable`
    """Raises `ErasureFailed` if a component could not erase what it has."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncpg.PostgresError) and error.sqlstate == _COMPONENT_FAILED:
            raise ErasureFailed(str(error.args[0]), without_values(str(error.detail))) from error
