"""The roles of an embedded database: whoever migrates and whoever runs the application is no superuser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from moorline.embedded.sharing import embedded_dsn
from moorline_migrations.components import Migrations
from moorline_migrations.errors import connect_errors, store_errors
from moorline_migrations.identifiers import in_schema
from moorline_migrations.runner import migrate
from moorline_migrations.versions import Version


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

    async def _execute(self, script: str) -> None:
        sql = in_schema((files("moorline.embedded") / script).read_text(encoding="utf-8"), self.schema)
        with connect_errors():
            connection = await asyncpg.connect(self.superuser)
        try:
            with store_errors():
                await connection.execute(sql)
        finally:
            await connection.close()


def _as_role(dsn: str, role: str) -> str:
    return urlsplit(dsn)._replace(netloc=f"{role}@").geturl()
