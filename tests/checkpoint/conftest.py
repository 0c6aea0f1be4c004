"""A checkpointer on a fresh database."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from moorline_checkpoint.saver import DeviceCheckpointer


@pytest.fixture
async def saver(dsn: str) -> AsyncIterator[DeviceCheckpointer]:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        yield saver


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection beside the checkpointer's, to look at rows and to change them."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()
