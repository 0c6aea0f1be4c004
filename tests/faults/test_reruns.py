"""A turn that failed after its effect is run again after other turns: it finishes what it began."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from moorline import Moorline, Settings
from moorline.errors import StoreUnavailable
from moorline_agents.transport import rule_client
from moorline_checkpoint.turn import OpenTurn, TurnRecord
from moorline_checkpoint.turns import Turns
from tests.faults.laboratory import Laboratory, Way
from tests.faults.model import Read, agents, rules


class OnceLost(Turns):
    """The commit of one message's turn fails once."""

    lost: str | None = "m-a1-2"

    async def commit(self, turn: OpenTurn, record: TurnRecord) -> None:
        if turn.messages[0].id == self.lost:
            self.lost = None
            raise StoreUnavailable("lost")
        await super().commit(turn, record)


@asynccontextmanager
async def losing(dsn: str) -> AsyncIterator[Moorline]:
    team = agents(outside=lambda *_: None)
    async with Moorline(Settings(database_url=dsn), agents=team, client=lambda: rule_client(rules)) as moorline:
        opened = moorline._require_open()
        turns = OnceLost(opened.backend.saver.database, default_ttl=86400)
        moorline._opened = replace(
            opened,
            backend=replace(opened.backend, turns=turns),
            queue=replace(opened.queue, turns=turns, execution=replace(opened.queue.execution, turns=turns)),
        )
        yield moorline


@pytest.mark.parametrize(
    ("before", "between"),
    [("pass scheduling", "pass echo"), ("pass scheduling", "bye"), ("bye", "pass echo"), ("say", "pass scheduling")],
)
async def test_a_turn_that_booked_finishes_though_the_session_has_changed_hands(
    dsn: str, tmp_path: Path, before: str, between: str
) -> None:
    laboratory = Laboratory(way=Way(dsn=dsn, statement_cache_size=100), dsn=dsn, folder=tmp_path, seed=1)
    await laboratory.prepare()
    async with losing(dsn) as moorline:

        async def say(number: int, text: str) -> Read:
            message = f"m-a1-{number}"
            return Read.of(await moorline.run(f"{message} {text}", {"device_id": "d1", "message_id": message}))

        await say(1, before)
        book = f"book {laboratory.day}T10:00"
        with pytest.raises(StoreUnavailable):
            await say(2, book)
        await say(3, between)
        read = await say(2, book)
    assert read.by == "scheduling"
    assert (read.did or "").startswith("booked ")
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM appointments") == 1
        assert await connection.fetchval("SELECT active_agent FROM conversation_states") == "scheduling"
    finally:
        await connection.close()
