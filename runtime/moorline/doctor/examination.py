"""The examination: every check in its order, none of which keeps the others from running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from moorline.doctor import conversations, database, services
from moorline.doctor.case import Case, Check, connected
from moorline.doctor.finding import Finding
from moorline.embedded.roles import EmbeddedDatabase
from moorline.errors import MoorlineError
from moorline.settings import Settings
from moorline_migrations.components import Migrations
from moorline_migrations.errors import without_values

WITHIN = 20.0
"""Seconds that a check may take."""

DATABASE: dict[str, Check] = {
    "server": database.server,
    "schema": database.schema,
    "rights": database.rights,
    "roles": database.roles,
    "pooler": database.pooler,
    "statement cache": database.statement_cache,
    "clock": database.clock,
    "time zones": database.time_zones,
    "replica": services.replica,
    "leases": conversations.leases,
    "transactions": conversations.transactions,
    "dead letters": conversations.dead_letters,
    "cleanup": conversations.cleanup,
    "bloat": conversations.bloat,
}
"""The checks that need the database."""

OTHERS: dict[str, Callable[[Settings], Awaitable[Finding]]] = {"model": services.model, "Redis": services.redis}


async def examine(settings: Settings, components: Sequence[Migrations]) -> list[Finding]:
    """What all checks found. Nothing is changed; an embedded server is started if it does not run."""
    found = [await _tried("connection", partial(_connection, settings))]
    if found[0].state != "ok":
        found += [Finding(name, "skipped", "there is no connection to the database") for name in DATABASE]
    else:
        dsn = await _dsn(settings)
        for name, check in DATABASE.items():
            found.append(await _tried(name, partial(_checked, check, settings, components, dsn)))
    for name, look in OTHERS.items():
        found.append(await _tried(name, partial(look, settings)))
    return found


async def _connection(settings: Settings) -> Finding:
    if settings.database_url is None and not settings.data_folder.exists():
        seen = "there is no embedded database yet; the first turn makes it"
        return Finding("connection", "skipped", seen, "Set DATABASE_URL if there should be another one.")
    async with connected(await _dsn(settings)):
        where = "the embedded database" if settings.database_url is None else "DATABASE_URL"
        return Finding("connection", "ok", f"{where} takes connections")


async def _checked(check: Check, settings: Settings, components: Sequence[Migrations], dsn: str) -> Finding:
    async with connected(dsn) as connection:  # its own, so that none leaves anything to the next
        return await check(Case(settings=settings, components=components, dsn=dsn, connection=connection))


async def _dsn(settings: Settings) -> str:
    if settings.database_url is not None:
        return settings.database_url
    return (await EmbeddedDatabase.open(settings.data_folder, schema=settings.schema_name)).app


async def _tried(name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        async with asyncio.timeout(WITHIN):
            return await check()
    except MoorlineError as error:  # says what to do
        return Finding(name, "fail", type(error).__name__, " ".join(str(error).split()))
    except Exception as error:  # whatever a server may do
        seen = f"it could not be checked ({type(error).__name__}: {without_values(str(error))})"
        return Finding(name, "warn", seen, "See if this works with the role, the pooler and the server that you have.")
