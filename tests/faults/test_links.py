"""Whatever is killed while a device is linked: the link is whole or not there, no message is lost or doubled, and the
order is kept."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest

from moorline import Moorline
from tests.faults import linkers
from tests.faults.conftest import Report
from tests.faults.laboratory import PATIENCE, Way
from tests.faults.linkers import Orders, Place, talk
from tests.faults.worker import chance_of
from tests.turns.runtimes import execute, runtime, say

LEASE_SECONDS = 2.0

MESSAGES = 5
"""Of each stream: `a` on the other device, `x` by a process on the device that is linked, and `y` by another one."""

SLOW = """
CREATE TABLE released (device_id text);
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('application_name', 'linking ' || NEW.device_id, false);
    WHILE NOT EXISTS (SELECT FROM released r WHERE r.device_id = NEW.device_id::text) LOOP
        PERFORM pg_sleep(0.02);
    END LOOP;
    PERFORM set_config('application_name', '', false);
    RETURN NEW;
END
$$;
CREATE TRIGGER dawdle BEFORE UPDATE OF leads_to ON conversation_states
    FOR EACH ROW WHEN (NEW.device_id LIKE 'slow-%') EXECUTE FUNCTION dawdle();
"""
"""In the database, a link lasts until it is released."""

LINKING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'linking ' || $1"
END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'linking ' || $1"

_processes = multiprocessing.get_context("forkserver")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is hit, and whether the device is linked then; None: one or the other."""

    at: Place | None = None
    """The linker is killed here. None: it is whoever is at it in the database that is hit."""
    hit: str = "linker"
    """`carrier`: another process that links the device on the linker's behalf. `backend`: the server's process."""
    thinking: float | None = None
    """Seconds that the message takes which runs before; None: none does."""
    linked: bool | None

    @property
    def name(self) -> str:
        return f"{self.at or 'in_the_statement'}-{self.hit}-{self.thinking}".replace("_", "-")


FAULTS = (
    Fault(at="after_redeem", thinking=None, linked=False),
    Fault(at="after_redeem", thinking=0.3, linked=False),
    Fault(at="while_waiting", thinking=0.3, linked=None),
    Fault(at="while_waiting", thinking=3.0, linked=False),
    Fault(at="after_join", thinking=None, linked=True),
    Fault(at="after_join", thinking=0.3, linked=True),
    Fault(hit="linker", linked=True),
    Fault(hit="backend", linked=True),
    Fault(hit="carrier", thinking=1.0, linked=True),
)


class Scene:
    """A device that is linked to another one, while both talk."""

    def __init__(self, reached: Way, dsn: str, moorline: Moorline, name: str) -> None:
        self.one, self.other = f"slow-{name}" if "statement" in name else f"quick-{name}", f"other-{name}"
        self._orders = Orders(
            dsn=reached.dsn,
            statement_cache_size=reached.statement_cache_size,
            lease=LEASE_SECONDS,
            device=self.one,
        )
        self._dsn = dsn
        self._moorline = moorline
        self._running: list[Any] = []

    async def play(self, fault: Fault) -> None:
        """Lets it happen, and has what was on its way delivered again."""
        linker = await self.linker(fault)
        talker = None
        if fault.thinking is not None:
            carries = fault.hit == "carrier"
            before = carries or fault.at == "while_waiting"
            talker = self.start(messages=MESSAGES, thinking=fault.thinking, before=before, around=carries)
            await self.until(linkers.RUNNING, self.one)
        talking = asyncio.gather(
            *(talk(self._moorline, self._dsn, device, s, MESSAGES) for s, device in self.streams("ya"))
        )
        if fault.at is None:
            await self.until(f"SELECT EXISTS ({LINKING})", self.one)
            if fault.hit == "backend":
                await execute(self._dsn, END, self.one)
            else:
                await self.kill(talker if fault.hit == "carrier" else linker)
            await execute(self._dsn, "INSERT INTO released VALUES ($1)", self.one)
        if fault.hit == "backend":
            await self.ended(linker, code=0)
        elif fault.hit == "carrier":
            await self.kill(linker)
        else:
            await self.ended(linker, code=-signal.SIGKILL)
        notices = (await talking)[1]
        if talker is not None and fault.hit != "carrier":
            await self.ended(talker, code=0)
        await self.verify(linked=fault.linked, notices=notices, talked=talker is not None)

    async def play_at_random(self, chance: Any) -> None:
        """Kills linker and talker at any time, or neither."""
        linker = self.start(code=await self._moorline.link_code(self.other), waits=True)
        talker = self.start(messages=MESSAGES, thinking=0.2 * chance.random())
        await self.until(linkers.RUNNING, self.one)
        talking = asyncio.gather(
            *(talk(self._moorline, self._dsn, device, s, MESSAGES) for s, device in self.streams("ya"))
        )
        for process in chance.sample([linker, talker], 2):
            await asyncio.sleep(0.3 * chance.random())
            if chance.random() < 0.8:
                await self.kill(process)
        for process in (linker, talker):
            await self.ended(process)
        await self.verify(linked=None, notices=(await talking)[1], talked=True)

    async def linker(self, fault: Fault) -> Any:
        stopped = fault.hit == "carrier"
        return self.start(
            code=await self._moorline.link_code(self.other),
            waits=fault.thinking is not None,
            at="while_waiting" if stopped else fault.at,
            signal="SIGSTOP" if stopped else "SIGKILL",
            # Its place must not be given up before somebody else has come to it.
            lease=PATIENCE if stopped else LEASE_SECONDS,
        )

    def streams(self, names: str) -> Sequence[tuple[str, str]]:
        return [(name, self.other if name == "a" else self.one) for name in names]

    def start(self, **orders: Any) -> Any:
        process = _processes.Process(target=linkers.run, args=(replace(self._orders, **orders).to_json(),))
        process.start()
        self._running.append(process)
        return process

    async def kill(self, process: Any) -> None:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        await self.ended(process)

    async def ended(self, process: Any, *, code: int | None = None) -> None:
        await asyncio.to_thread(process.join, PATIENCE)
        assert process.exitcode is not None
        assert code in (None, process.exitcode)

    async def until(self, sql: str, *arguments: object) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (await execute(self._dsn, sql, *arguments))[0][0]:  # noqa: ASYNC110 - the server cannot call us
                await asyncio.sleep(0.01)

    async def verify(self, *, linked: bool | None, notices: list[str], talked: bool) -> None:
        """What has to be there afterwards, and that it all goes on."""
        for stream, device in self.streams("xya" if talked else "ya"):
            for number in range(MESSAGES):
                await say(self._moorline, f"{device} {stream}{number}", f"{stream}{number}", device=device)
        last = await say(self._moorline, f"{self.other} a{MESSAGES}", f"a{MESSAGES}", device=self.other)
        whole = [each.device_id for each in await self._moorline.devices(self.one)] == [self.other, self.one]
        assert linked in (None, whole)
        [state] = await execute(
            self._dsn, "SELECT leads_to, linked_at FROM conversation_states WHERE device_id = $1", self.one
        )
        assert (state["leads_to"], state["linked_at"] is not None) == ((self.other, True) if whole else (None, False))
        await self._moorline.recover()
        assert not await execute(self._dsn, "SELECT 1 FROM conversation_messages WHERE joins = $1", self.other)
        assert len(notices) + (last.notice is not None) == whole

        own = await self.said(self.one, own=True)
        joined = await self.said(self.other)
        for turns in (own, joined):  # each was shown all that was said before it, once
            assert [reply for _, reply in turns] == [f"{number}: {text}" for number, (text, _) in enumerate(turns, 1)]
        assert not [text for text, _ in own if text.startswith(self.other)]
        assert whole or not [text for text, _ in joined if text.startswith(self.one)]
        texts = [text for text, _ in own + joined]
        for stream, device in self.streams("xya" if talked else "ya"):
            found = [text for text in texts if text.split()[1].startswith(stream)]
            assert found == [f"{device} {stream}{number}" for number in range(MESSAGES + (stream == "a"))], texts

        if not whole:
            await self._moorline.link(self.one, await self._moorline.link_code(self.other))
        reply = await say(self._moorline, f"{self.one} z", "z", device=self.one)
        assert (await self.said(self.other))[-1] == (f"{self.one} z", reply)

    async def said(self, device: str, *, own: bool = False) -> list[tuple[str, str]]:
        entries = await self._moorline.transcript(device, own=own)
        return [(text, str(entry.record.reply)) for entry in entries for text in entry.texts]


@pytest.fixture
async def moorline(reached: Way, dsn: str) -> AsyncIterator[Moorline]:
    """What is never hit."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(SLOW)
    await connection.close()
    async with runtime(reached.dsn, statement_cache_size=reached.statement_cache_size) as opened:
        yield opened


async def test_a_link_is_whole_or_not_there(reached: Way, dsn: str, moorline: Moorline, report: Report) -> None:
    """All at once, each with devices of its own."""
    scenes = [Scene(reached, dsn, moorline, fault.name) for fault in FAULTS]
    await asyncio.gather(*(scene.play(fault) for scene, fault in zip(scenes, FAULTS, strict=True)))
    report(failpoints=f"{len(scenes)} of {len(FAULTS)}")


@pytest.mark.laboratory
async def test_linkers_and_talkers_killed_at_any_time(
    reached: Way, dsn: str, moorline: Moorline, seed: int, report: Report
) -> None:
    rounds = 50
    for number in range(0, rounds, 5):
        scenes = [Scene(reached, dsn, moorline, f"random-{number + n}") for n in range(5)]
        await asyncio.gather(*(s.play_at_random(chance_of(seed, s.one)) for s in scenes))
    report(links=rounds)
