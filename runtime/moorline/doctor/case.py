"""A case: the installation that is looked at, and the connection to its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg

from moorline.doctor.finding import Finding
from moorline.settings import Settings
from moorline_migrations.components import Migrations
from moorline_migrations.errors import connect_errors
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from asyncpg import Connection, Record

CONNECT_TIMEOUT = 10.0
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the checks of the database are given."""

    settings: Settings
    components: Sequence[Migrations]
    dsn: str
    connection: Connection[Record]

    async def fetch(self, name: str, *arguments: object) -> list[Record]:
        return await self.connection.fetch(self.sql(name), *arguments)

    async def row(self, name: str, *arguments: object) -> Record:
        [row] = await self.fetch(name, *arguments)
        return row

    async def value(self, name: str, *arguments: object) -> Any:
        return await self.connection.fetchval(self.sql(name), *arguments)

    def sql(self, name: str) -> str:
        """One of the statements in doctor.sql."""
        return load("moorline.doctor", self.settings.schema_name)[name].sql


Check = Callable[[Case], Awaitable[Finding]]


@asynccontextmanager
async def connected(dsn: str, *, statement_cache_size: int = 0) -> AsyncIterator[Connection[Record]]:
    """A connection. Raises `StoreUnavailable` or `ConfigurationError`."""
    with connect_errors():
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, statement_cache_size=statement_cache_size)
    try:
        yield connection
    finally:
        connection.terminate()  # whatever it was in the middle of
