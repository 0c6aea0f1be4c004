"""Traces that a test looks at."""

import pytest

from tests.turns.runtimes import execute

from .traces import Traces


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
async def world_dsn(dsn: str) -> str:
    """A fresh database with the table that the tool `book` writes to."""
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    return dsn
