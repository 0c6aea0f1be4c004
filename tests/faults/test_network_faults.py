"""Workers behind a failing network: it resets, swallows and refuses, and withholds answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest

from tests.faults.conftest import Report
from tests.faults.laboratory import Laboratory, verify
from tests.faults.proxy import Proxy, Send, proxied
from tests.faults.test_faults import LEASE_SECONDS, SPELL, devices
from tests.faults.test_proxy import HOLES
from tests.faults.worker import chance_of

Fault = Callable[[Proxy, Random], Awaitable[int]]
"""Lasts for a while, and returns how often it struck."""


async def resets(proxy: Proxy, chance: Random) -> int:
    before = len(proxy.sends)
    with proxy.resetting(seed=chance.randrange(1000), every=30):
        await asyncio.sleep(SPELL)
    return (len(proxy.sends) - before) // 30


async def black_holes(proxy: Proxy, chance: Random) -> int:
    for direction in chance.sample(HOLES, 3):
        with proxy.black_hole(direction):
            await asyncio.sleep(SPELL / 6 * (1 + chance.random()))
        await asyncio.sleep(SPELL / 6)
    return 3


async def refusals(proxy: Proxy, chance: Random) -> int:
    for _ in range(3):
        async with proxy.refusing():
            await asyncio.sleep(SPELL / 6 * (1 + chance.random()))
        await asyncio.sleep(SPELL / 6)
    return 3


async def lost_begins(proxy: Proxy, chance: Random) -> int:
    return await _lost(proxy, "begin", chance)


async def lost_commits(proxy: Proxy, chance: Random) -> int:
    return await _lost(proxy, "commit", chance)


async def _lost(proxy: Proxy, statement: str, chance: Random) -> int:
    lost: list[Send] = []

    def loses(send: Send) -> bool:
        if send.statement != statement or chance.random() > 0.2:
            return False
        lost.append(send)
        return True

    proxy.loses_answer = loses
    await asyncio.sleep(SPELL)
    proxy.loses_answer = lambda _: False
    return len(lost)


@pytest.mark.parametrize("fault", [resets, black_holes, refusals, lost_begins, lost_commits])
async def test_network_fails(laboratory: Laboratory, seed: int, fault: Fault, report: Report) -> None:
    async with proxied(laboratory.way.dsn) as proxy:
        laboratory.way = replace(laboratory.way, dsn=proxy.dsn)
        for name in ("wa1", "wa2"):
            laboratory.start(name, devices=devices(8), lease=LEASE_SECONDS)
        await laboratory.ready()
        struck = await fault(proxy, chance_of(seed))
        recorded = await laboratory.finish()
    figures = verify(recorded)
    assert struck > 0
    report(**figures, struck=struck)
