"""A running turn renews its lease for as long as it runs."""

import asyncio

import pytest

from moorline import execution

from .claims import Connection, expire_lease
from .runtimes import Stall, runtime, say

STANDS = "SELECT lease_until > clock_timestamp() FROM conversation_states"


async def test_a_turn_that_outlasts_a_heartbeat_renews_its_lease_again_and_again(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 0.05)
    stall = Stall()
    async with runtime(dsn, stall) as moorline:
        saying = asyncio.create_task(say(moorline, "hello"))
        await stall.reached.wait()
        for _ in range(2):
            await expire_lease(connection)
            async with asyncio.timeout(10):
                while not await connection.fetchval(STANDS):  # noqa: ASYNC110 - the server cannot call us
                    await asyncio.sleep(0.01)
        stall.go_on.set()
        assert await saying == "1: hello"
