"""A checkpointer on a fresh database."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from moorline_checkpoint.saver import DeviceCheckpointer


@dataclass
class Watched:
    """A checkpointer on a pool of the test's own, and the statements it has run."""

    saver: DeviceCheckpointer
    statements: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def note(self, run: LoggedQuery) -> None:
        """Records a statement that was run."""
        self.statements.append(run.query)
        if run.exception is not None:
            self.errors.append(run.exception)


@pytest.fixture
async def saver(dsn: str) -> AsyncIterator[DeviceCheckpointer]:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        yield saver


@pytest.fixture
async def watched(dsn: str) -> AsyncIterator[Watched]:
    async def watch(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        connection.add_query_logger(seen.note)

    async with asyncpg.create_pool(dsn, min_size=0, init=watch, reset=_no_reset) as pool:
        seen = Watched(DeviceCheckpointer(pool))
        yield seen


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection besides the checkpointer's, to look at rows and to change them."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def _no_reset(connection: object) -> None: ...
