"""Several processes on one database, simulated in one: each worker has its own turns and connections."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import asyncpg
import pytest

from moorline_checkpoint.database import Database
from moorline_checkpoint.turns import Turns

Workers = Callable[[], Turns]


@pytest.fixture
async def worker(dsn: str) -> AsyncIterator[Workers]:
    """Makes a worker's turns."""
    async with AsyncExitStack() as stack:

        def make() -> Turns:
            database = Database(dsn)
            stack.push_async_callback(database.close)
            return Turns(database, default_ttl=86400)

        yield make


@pytest.fixture
def turns(worker: Workers) -> Turns:
    """The turns of one worker."""
    return worker()


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection besides the workers', to look at rows and to change them."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()
