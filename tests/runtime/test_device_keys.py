"""A table that a backend had before may hold fewer IDs than text, or take several for one. Two IDs that are one row are
one device everywhere, or an `InvalidDeviceID`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import pytest

from moorline import Moorline, Reply, Settings
from moorline.errors import InvalidDeviceID, SchemaMismatch
from moorline_agents.transport import rule_client
from moorline_migrations import migrate

from .conftest import agent, counting

DEVICE = "0f8fad5b-d9cb-469f-a165-70867728950e"
IGNORES_CASE = "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"


async def executed(dsn: str, *commands: str) -> list[tuple[object, ...]]:
    """The rows of the last command."""
    connection = await asyncpg.connect(dsn)
    try:
        for command in commands[:-1]:
            await connection.execute(command)
        return [tuple(row) for row in await connection.fetch(commands[-1])]
    finally:
        await connection.close()


@asynccontextmanager
async def adopting(dsn: str, key: str, *commands: str) -> AsyncIterator[Moorline]:
    """A runtime on a database whose `conversation_states` had this key before."""
    table = f"CREATE TABLE conversation_states (device_id {key} PRIMARY KEY, step text)"
    await executed(dsn, *commands, table)
    await migrate(dsn)
    async with Moorline(
        Settings(database_url=dsn), agents=[agent("hair")], client=lambda: rule_client(counting)
    ) as moorline:
        yield moorline


async def refused_everywhere(moorline: Moorline, device: str) -> None:
    for use in (moorline.session, moorline.transcript, moorline.erase, moorline.known, moorline.device_tag):
        with pytest.raises(InvalidDeviceID):
            await use(device)
    with pytest.raises(InvalidDeviceID):
        await moorline.run("hair please", {"device_id": device, "message_id": "m"})
    with pytest.raises(InvalidDeviceID):
        await moorline.requeue(device, "m")


async def test_a_uuid_key_takes_uuids_in_the_spellings_that_become_one(empty_dsn: str) -> None:
    async with adopting(empty_dsn, "uuid") as moorline:
        await moorline.run("hair please", {"device_id": DEVICE})
        assert await moorline.run("next", {"device_id": DEVICE.upper()}) == "hair 2: next"
        assert await moorline.run("next", {"device_id": UUID(DEVICE)}) == "hair 3: next"
        for other in (f"{{{DEVICE}}}", "0f8f-ad5b-d9cb-469f-a165-7086-7728-950e", "d1", f"web:{DEVICE}"):
            await refused_everywhere(moorline, other)
        assert await moorline.run("next", {"device_id": DEVICE}) == "hair 4: next"
        assert len(await moorline.transcript(DEVICE.replace("-", ""))) == 4


async def test_a_short_key_takes_only_what_fits(empty_dsn: str) -> None:
    async with adopting(empty_dsn, "varchar(10)") as moorline:
        for device in ("abcdefghij", "ünïcödé-10", "abc", "ABC"):
            assert await moorline.run("hair please", {"device_id": device}) == "hair 1: hair please"
            assert await moorline.known(device)
        await refused_everywhere(moorline, "abcdefghijk")
        assert await moorline.run("next", {"device_id": "abcdefghij"}) == "hair 2: next"


async def test_a_key_of_padded_text_becomes_text(empty_dsn: str) -> None:
    async with adopting(empty_dsn, "char(10)") as moorline:
        for device in ("abc", "abcdefghijk"):
            assert await moorline.run("hair please", {"device_id": device}) == "hair 1: hair please"


@pytest.fixture
async def with_icu(empty_dsn: str) -> str:
    """A database whose server has ICU, without which no collation ignores case."""
    try:
        await executed(empty_dsn, IGNORES_CASE)
    except asyncpg.FeatureNotSupportedError:
        pytest.skip("this server was built without ICU")
    return empty_dsn


async def test_spellings_that_the_key_takes_for_one_are_one_device(with_icu: str) -> None:
    async with adopting(with_icu, "text COLLATE ci") as moorline:
        assert await moorline.run("hair please", {"device_id": "Alice"}) == "hair 1: hair please"
        for device in ("ALICE", "alice", "Alice"):
            assert await moorline.known(device)
            assert await moorline.session(device) is not None
            assert await moorline.device_tag(device) == await moorline.device_tag("Alice")
        assert await moorline.run("next", {"device_id": "ALICE", "message_id": "m1"}) == "hair 2: next"
        assert (await moorline.run("next", {"device_id": "alice", "message_id": "m1"})).replayed
        assert await moorline.run("mine", {"device_id": "Bob"}) == "hair 1: mine"
        assert len(await moorline.transcript("aLICE")) == 2
        assert await moorline.erase("aLICE")
        assert not await moorline.known("Alice")
        assert await moorline.known("BOB")


async def test_of_two_spellings_that_come_first_at_once_one_is_refused(with_icu: str) -> None:
    async with adopting(with_icu, "text COLLATE ci") as moorline:
        came = await asyncio.gather(
            *(moorline.run("hair please", {"device_id": device}) for device in ("Alice", "ALICE", "alice")),
            return_exceptions=True,
        )
        assert {type(each) for each in came} <= {Reply, InvalidDeviceID}
        said = [each for each in came if isinstance(each, Reply)]
        assert len(said) == len(await moorline.transcript("aLICE")) >= 1


async def test_a_row_of_the_backend_keeps_its_spelling(with_icu: str) -> None:
    async with adopting(with_icu, "text COLLATE ci") as moorline:
        await executed(with_icu, "INSERT INTO conversation_states (device_id, step) VALUES ('Jane@X.com', 'intake')")
        assert await moorline.run("hair please", {"device_id": "jane@x.com"}) == "hair 1: hair please"
        states = "SELECT device_id, step, active_agent FROM conversation_states"
        assert await executed(with_icu, states) == [("Jane@X.com", "intake", "hair")]


@pytest.mark.parametrize("kind", ["name", "char(40)", "email"])
async def test_a_key_that_has_become_something_else_is_refused_at_the_start(dsn: str, kind: str) -> None:
    await executed(
        dsn,
        "CREATE DOMAIN email AS text",
        "DROP VIEW expired_sessions",
        f"ALTER TABLE conversation_states ALTER COLUMN device_id TYPE {kind}",
    )
    with pytest.raises(SchemaMismatch, match=r"device_id of conversation_states is .* make it text"):
        async with Moorline(Settings(database_url=dsn), agents=[agent("hair")]):
            pass


@pytest.mark.parametrize(
    ("key", "commands"),
    [
        (
            "text REFERENCES devices",
            ["CREATE TABLE devices (id text PRIMARY KEY)", "INSERT INTO devices VALUES ('d1')"],
        ),
        ("text CHECK (device_id ~ '^d[0-9]+$')", []),
    ],
)
async def test_an_id_that_the_backend_does_not_admit_is_refused(empty_dsn: str, key: str, commands: list[str]) -> None:
    async with adopting(empty_dsn, key, *commands) as moorline:
        with pytest.raises(InvalidDeviceID):
            await moorline.run("hair please", {"device_id": "stranger"})
        assert await moorline.run("hair please", {"device_id": "d1"}) == "hair 1: hair please"
