"""The server's statistics, which are complete only when sessions have ended."""

import asyncio

from .runtimes import execute

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def gone(dsn: str) -> None:
    """Returns when nobody else is connected to the database: then the server has counted everything."""
    async with asyncio.timeout(30):
        while (await execute(dsn, OTHERS))[0]["count"]:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)
