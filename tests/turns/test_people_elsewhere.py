"""People have their devices in one conversation also where the table was a backend's before, and behind a pooler."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from moorline import Moorline
from moorline_migrations import migrate

from ..pgbouncer import needs_pgbouncer, pooled
from .runtimes import runtime, say
from .test_people import JOINED, everywhere, linked, texts

BACKENDS = Path(__file__).parent.parent / "migrations" / "backends"

ONE, TWO, THREE, NEW = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3, 9))
"""The backends have rows for the first ones, and refer to that of ONE from another table."""


@dataclass(frozen=True)
class Place:
    """A database, and how a runtime reaches it."""

    dsn: str
    through: str
    settings: Mapping[str, Any]

    def runtime(self) -> AbstractAsyncContextManager[Moorline]:
        return runtime(self.through, **self.settings)


@pytest.fixture(params=["uuid_key", "uuid_device", pytest.param("pgbouncer", marks=needs_pgbouncer)])
def place(request: pytest.FixtureRequest, empty_dsn: str) -> Iterator[Place]:
    asyncio.run(prepare(empty_dsn, None if request.param == "pgbouncer" else request.param))
    if request.param != "pgbouncer":
        yield Place(empty_dsn, empty_dsn, {})
        return
    with pooled(empty_dsn) as through:
        yield Place(empty_dsn, through, {"statement_cache_size": 0})


async def prepare(dsn: str, backend: str | None) -> None:
    if backend is not None:
        connection = await asyncpg.connect(dsn)
        await connection.execute((BACKENDS / f"{backend}.sql").read_text())
        await connection.close()
    await migrate(dsn)


async def test_devices_are_linked_and_unlinked(place: Place) -> None:
    async with place.runtime() as moorline:
        assert await say(moorline, "hello", device=ONE) == "1: hello"
        before = await say(moorline, "good day", "m1", device=NEW)
        assert await linked(moorline, NEW, to=ONE) == [ONE, NEW]
        assert [each.device_id for each in await moorline.devices(ONE.upper())] == [ONE, NEW]
        replies = await asyncio.gather(
            *(say(moorline, f"{n}", f"n{n}", device=device) for n in range(5) for device in (ONE, NEW))
        )
        assert [reply.notice for reply in replies].count(JOINED) == 1
        assert await texts(moorline, ONE) == await texts(moorline, NEW.upper())
        for device in range(2):
            assert sorted(reply.turn_no for reply in replies[device::2]) == [r.turn_no for r in replies[device::2]]
        assert sorted(reply.turn_no for reply in replies) == list(range(2, 12))
        again = await say(moorline, "good day", "m1", device=NEW)
        assert (again, again.replayed) == (before, True)
        assert await moorline.unlink(NEW)
        assert await say(moorline, "back", device=NEW) == "2: back"
        assert await texts(moorline, NEW) == ["good day", "back"]


async def test_the_device_whose_conversation_it_was_leaves_for_a_new_one(place: Place) -> None:
    async with place.runtime() as moorline:
        await say(moorline, "hello", device=TWO)
        await linked(moorline, NEW, to=TWO)
        assert await moorline.unlink(TWO)
        assert await say(moorline, "anew", device=TWO) == "1: anew"
        assert await say(moorline, "go on", device=NEW) == "2: go on"


@pytest.mark.parametrize("erased", [ONE, NEW])
async def test_a_device_is_erased(place: Place, erased: str) -> None:
    async with place.runtime() as moorline:
        await say(moorline, "hello", device=ONE)
        await say(moorline, "good day", device=NEW)
        await linked(moorline, NEW, to=ONE)
        await say(moorline, "and now", device=NEW)
        assert await moorline.erase(erased)
        left = NEW if erased == ONE else ONE
        assert await texts(moorline, left) == ["hello", "and now"]
        assert await say(moorline, "go on", device=left) == "3: go on"
        assert await say(moorline, "who am I", device=erased) == "1: who am I"


async def test_a_person_is_erased(place: Place) -> None:
    async with place.runtime() as moorline:
        for device in (THREE, NEW):
            await say(moorline, "hello", device=device, person_id="ann")
        assert await texts(moorline, NEW) == ["hello", "hello"]
        assert await moorline.erase(NEW, scope="person")
        assert await everywhere(place.dsn, "ann") == await everywhere(place.dsn, NEW) == []
        assert await say(moorline, "anew", device=NEW, person_id="ann") == "1: anew"
