"""The roles of an embedded database: whoever migrates and whoever runs the application is no superuser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import asyncpg

from moorline.embedded.sharing import embedded_dsn
from moorline_agents.scheduling.demo import seed_demo
from moorline_migrations.components import Migrations
from moorline_migrations.errors import connect_errors, store_errors
from moorline_migrations.identifiers import in_schema
from moorline_migrations.runner import migrate
from moorline_migrations.versions import Version

if TYPE_CHECKING:
    from asyncpg import Connection, Record


@dataclass(frozen=True, kw_only=True)
class EmbeddedDatabase:
    """The database of a data folder, with its roles."""

    superuser: str
    """The DSN of the role that made the cluster; it only makes the other two."""
    owner: str
    """The DSN of the role that owns what is in the schema."""
    app: str
    """The DSN of the role that runs the application."""
    schema: str

    @classmethod
    async def open(cls, data: Path, *, schema: str) -> Self:
        """Starts the folder's server as `embedded_dsn` does, and makes the roles if they are missing."""
        superuser = await embedded_dsn(data)
        opened = cls(
            superuser=superuser,
            owner=_as_role(superuser, "moorline_owner"),
            app=_as_role(superuser, "moorline_app"),
            schema=schema,
        )
        await opened._execute("roles.sql")
        return opened

    async def migrate(self, components: Sequence[Migrations]) -> list[Version]:
        """Like `moorline_migrations.migrate`, and gives the application its rights."""
        applied = await migrate(self.owner, schema=self.schema, components=components)
        await self._execute("rights.sql")
        return applied

    async def seed(self) -> None:
        """Fills an empty catalogue of appointments with that of the demonstration."""
        async with _connection(self.owner) as connection:
            await seed_demo(connection, schema=self.schema)

    async def _execute(self, script: str) -> None:
        sql = in_schema((files("moorline.embedded") / script).read_text(encoding="utf-8"), self.schema)
        async with _connection(self.superuser) as connection:
            await connection.execute(sql)


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[Connection[Record]]:
    with connect_errors():
        connection = await asyncpg.connect(dsn)
    try:
        with store_errors():
            yield connection
    finally:
        await connection.close()


def _as_role(dsn: str, role: str) -> str:
    return urlsplit(dsn)._replace(netloc=f"{role}@").geturl()
