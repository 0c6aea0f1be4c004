"""Checks of the database: who runs there with which rights, what stands in between, and clocks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg

from moorline.doctor.case import Case, connected
from moorline.doctor.finding import Finding
from moorline_agents.scheduling.demo import TIME_ZONE
from moorline_migrations.runner import check, status

OLDEST = 130_000
"""The server's version number."""

CROWDED = 0.8
"""Which part of the server's connections may be in use."""

SKEW_WARNED, SKEW_FAILED = 2.0, 60.0
"""Seconds."""

HANGS = 3.0
"""Seconds that a pooler has for a query."""

_GRANT = re.compile(r"\bGRANT\s+([A-Z,\s]+?)\s+ON\s+(FUNCTION\s+)?([^;]+?)\s+TO\s+moorline_app\b")


async def server(case: Case) -> Finding:
    """Whether the server is one that turns can run on."""
    began = time.perf_counter()
    row = await case.row("server")
    seen = f"PostgreSQL {row['version']}, {row['used']} of {row['most']} connections in use, answers in "
    seen += f"{(time.perf_counter() - began) * 1000:.1f} ms"
    if row["number"] < OLDEST:
        return Finding("server", "fail", seen, "Use PostgreSQL 13 or newer.")
    if row["replica"]:
        return Finding("server", "fail", f"{seen}; it is a replica", "Let DATABASE_URL lead to the primary.")
    if row["used"] > CROWDED * row["most"]:
        todo = "Raise max_connections, lower MOORLINE_POOL_MAX, or put PgBouncer in between."
        return Finding("server", "warn", seen, todo)
    return Finding("server", "ok", seen)


async def schema(case: Case) -> Finding:
    """Whether this code can run on the schema. Raises `SchemaMismatch`, which says what to do."""
    await check(case.connection, schema=case.settings.schema_name, components=case.components)
    stand = await status(case.dsn, schema=case.settings.schema_name, components=case.components)
    seen = ", ".join(f"{each.component} at version {each.current}" for each in stand)
    return Finding("schema", "ok", f"{case.settings.schema_name}: {seen}")


async def rights(case: Case) -> Finding:
    """Whether the role has what `grants.sql` gives to the one that runs the application."""
    granted = list(_granted(case.settings.schema_name))
    tables = [(name, right) for name, right, function in granted if not function]
    functions = [name.rpartition(".")[2] for name, _, function in granted if function]
    lacking = [
        f"{row['privilege']} on {row['object']}"
        for row in await case.fetch("lacking_on_tables", *map(list, zip(*tables, strict=True)))
    ]
    found = await case.fetch("lacking_on_functions", case.settings.schema_name, functions)
    lacking += [f"EXECUTE on {row['object']}" for row in found]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""  # noqa: PLR2004 - enough to see what it is
        todo = "Run migrations/moorline_migrations/sql/grants.sql with your names, as the role that owns the schema."
        return Finding("rights", "fail", f"the role lacks {', '.join(lacking[:3])}{more}", todo)
    return Finding("rights", "ok", f"the role has the {len(granted)} rights that it needs")


async def roles(case: Case) -> Finding:
    """Whether the role can do more than it needs."""
    row = await case.row("roles", case.settings.schema_name)
    todo = 'Run the application as a role of its own, with grants.sql: see "Your own PostgreSQL" in README.md.'
    if row["super"]:
        return Finding("roles", "warn", f"{row['name']} is a superuser, and so is every tool", todo)
    if row["owns"] or row["creates"]:
        return Finding("roles", "warn", f"{row['name']} may change the schema", todo)
    return Finding("roles", "ok", f"{row['name']} may not change the schema")


async def pooler(case: Case) -> Finding:
    """What stands between this process and the server."""
    mode = await _pooler_mode(case)
    if mode is None:
        return Finding("pooler", "ok", "none: connections lead to the server")
    return Finding("pooler", "ok", f"one that lends connections for a {mode}")


async def statement_cache(case: Case) -> Finding:
    """Whether prepared statements survive what stands in between."""
    size, mode = case.settings.statement_cache_size, await _pooler_mode(case)
    seen = f"MOORLINE_STATEMENT_CACHE_SIZE={size}"
    if mode != "transaction":
        todo = "Unset it: without a cache every statement takes two round trips."
        return Finding("statement cache", "ok" if size else "warn", seen, "" if size else todo)
    if not size:
        return Finding("statement cache", "ok", f"{seen}, which works behind any pooler")
    try:
        async with asyncio.timeout(HANGS):
            await _cached_statements(case)
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError) as error:
        todo = "Set MOORLINE_STATEMENT_CACHE_SIZE=0, or max_prepared_statements in PgBouncer 1.21 or newer."
        return Finding("statement cache", "fail", f"{seen}, and the pooler loses them ({type(error).__name__})", todo)
    return Finding("statement cache", "ok", f"{seen}, and the pooler keeps track of them")


async def clock(case: Case) -> Finding:
    """How far this machine's clock is from the database's, which decides leases and expiry."""
    before = datetime.now(UTC)
    theirs = await case.value("clock")
    skew = abs((theirs - (before + (datetime.now(UTC) - before) / 2)).total_seconds())
    seen = f"this machine's clock and the database's are {skew:.2f} s apart"
    todo = "Set both by NTP. The database's clock decides leases and expiry; this machine's is in logs and in JWTs."
    if skew > SKEW_FAILED:
        return Finding("clock", "fail", seen, todo)
    return Finding("clock", "warn", seen, todo) if skew > SKEW_WARNED else Finding("clock", "ok", seen)


async def time_zones(case: Case) -> Finding:
    """Whether this machine and the server know the same of the zones that are in use."""
    embedded = case.settings.database_url is None
    zones = {case.settings.time_zone or (TIME_ZONE if embedded else "UTC")}
    if await case.value("has_providers"):
        zones |= {row["time_zone"] for row in await case.fetch("providers_zones")}
    now = datetime.now(UTC)
    moments = [now + timedelta(days=days) for days in range(0, 366, 30)]
    there = {(row["zone"], row["moment"]): row["there"] for row in await case.fetch("offsets", sorted(zones), moments)}
    differ = sorted({zone for zone in zones for moment in moments if not _same(zone, moment, there)})
    if differ:
        todo = "Correct the zone in appointment_providers or MOORLINE_TIME_ZONE, or update tzdata on the older side."
        return Finding(
            "time zones", "fail", f"this machine and the server do not know the same of {', '.join(differ)}", todo
        )
    return Finding("time zones", "ok", f"both know {', '.join(sorted(zones))}, with the same offsets for a year")


def _same(zone: str, moment: datetime, there: Mapping[tuple[str, datetime], datetime]) -> bool:
    """Whether both know the zone and have the same local time in it."""
    try:
        return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == there[zone, moment]
    except (KeyError, ZoneInfoNotFoundError, ValueError, OSError):
        return False


def _granted(schema: str) -> Iterator[tuple[str, str, bool]]:
    """Each right of grants.sql: the object with its schema, the right, and whether it is a function."""
    text = (files("moorline_migrations") / "sql" / "grants.sql").read_text(encoding="utf-8")
    text = re.sub(r"--[^\n]*", "", text)
    for given, function, objects in _GRANT.findall(text):
        for name in objects.split(","):
            if not name.split()[0].isupper():  # SCHEMA, SEQUENCE
                qualified = f"{schema}.{name.strip().removeprefix('public.')}"
                for right in given.split(","):
                    yield qualified, right.strip(), bool(function)


async def _pooler_mode(case: Case) -> str | None:
    own = await case.value("backend")
    if own == case.connection.get_server_pid():  # a pooler tells a number of its own
        return None
    async with connected(case.dsn) as other:
        await other.execute("BEGIN")
        theirs = await other.fetchval(case.sql("backend"))
        async with asyncio.timeout(HANGS):
            now = await case.value("backend")
    return "transaction" if theirs == own or now != own else "session"


async def _cached_statements(case: Case) -> None:
    """A statement that was prepared on one of the pooler's connections is sent on another."""
    size = case.settings.statement_cache_size
    async with (
        connected(case.dsn, statement_cache_size=size) as one,
        connected(case.dsn, statement_cache_size=size) as other,
    ):
        for _ in range(2):
            await one.fetchval(case.sql("backend"))
        await other.execute("BEGIN")
        await other.fetchval(case.sql("backend"))
        await one.fetchval(case.sql("backend"))
