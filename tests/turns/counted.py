"""What the server has counted of those who have gone."""

import asyncio

from .runtimes import execute

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def gone(dsn: str) -> None:
    """Comes back when nobody else is connected to the database: then the server has counted all that was done."""
    async with asyncio.timeout(30):
        while (await execute(dsn, OTHERS))[0]["count"]:  # noqa: ASYNC110 - the server cannot call us
            await asyncio.sleep(0.01)
