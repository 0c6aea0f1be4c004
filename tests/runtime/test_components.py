"""The agents of an app bring their tables, and the app knows which migrations they need."""

import json

import asyncpg
import pytest
from pydantic import BaseModel

from moorline import Moorline, Settings
from moorline.defaults import shipped_agents
from moorline.errors import ConfigurationError, SchemaMismatch
from moorline_agents.agent import Agent
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client
from moorline_migrations import CORE, SHIPPED, Migrations, migrate

from ..migrations.packages import BILLS, MakePackage, make_package
from .conftest import agent, counting

__all__ = ["make_package"]


class Sum(BaseModel):
    """What is to be paid."""

    cents: int


@tool(effect="database")
async def bill(amount: Sum, context: ToolContext) -> dict[str, int]:
    """Bills it."""
    async with context.transaction() as connection:
        await connection.execute("INSERT INTO bills VALUES ($1, 1, $2)", context.device_id, amount.cents)
    return {"billed": amount.cents}


def bills_once(request: ModelRequest) -> ModelReply:
    if request.messages[-1]["role"] == "tool":
        return ModelReply(text=f"billed {json.loads(request.messages[-1]['content'] or '')['billed']}")
    return ModelReply(calls=(Call(name="bill", arguments={"cents": 4200}),))


def app(dsn: str, migrations: Migrations | None) -> Moorline:
    """An app with one agent, which sends a bill to everyone who talks to it."""
    billing = Agent(name="billing", description="bills", instructions="bill", tools=[bill], migrations=migrations)
    return Moorline(Settings(database_url=dsn), agents=[billing], client=lambda: rule_client(bills_once))


async def test_an_agents_own_tables_are_migrated_used_and_erased(empty_dsn: str, make_package: MakePackage) -> None:
    ours = app(empty_dsn, Migrations("billing", package=make_package("billing", **{"0001_bills": BILLS})))
    await migrate(empty_dsn)
    with pytest.raises(SchemaMismatch, match=r"'billing' has no tables.*`moorline migrate`"):
        async with ours:
            pass

    applied = await migrate(empty_dsn, components=ours.components)
    assert list(map(str, applied)) == ["billing 0001 bills"]
    connection = await asyncpg.connect(empty_dsn)
    try:
        async with ours:
            assert await ours.run("pay", {"device_id": "d1"}) == "billed 4200"
            assert await ours.run("pay", {"device_id": "d2"}) == "billed 4200"
            await ours.erase("d1")
        assert [tuple(row) for row in await connection.fetch("SELECT * FROM bills")] == [("d2", 1, 4200)]
        # A process whose app has no such agent.
        hair = Moorline(Settings(database_url=empty_dsn), agents=[agent("hair")], client=lambda: rule_client(counting))
        async with hair:
            await hair.erase("d2")
        assert await connection.fetch("SELECT FROM bills") == []
    finally:
        await connection.close()


def test_the_agents_that_ship_need_what_is_shipped(dsn: str) -> None:
    settings = Settings(database_url=dsn)
    assert Moorline(settings).components == SHIPPED
    assert {each.migrations for each in shipped_agents(settings)} - {None} == set(SHIPPED) - {CORE}


def test_an_app_without_tables_of_its_own_needs_the_core_only(dsn: str) -> None:
    assert Moorline(Settings(database_url=dsn), agents=[agent("hair")]).components == (CORE,)


def test_two_agents_may_share_a_component_but_not_its_name(dsn: str) -> None:
    ours, theirs = (Migrations("billing", package=package) for package in ("clinic.sql", "other.sql"))

    def billing(name: str, migrations: Migrations) -> Agent:
        return Agent(name=name, description="bills", instructions="bill", migrations=migrations)

    shared = Moorline(Settings(database_url=dsn), agents=[billing("one", ours), billing("two", ours)])
    assert shared.components == (CORE, ours)
    split = Moorline(Settings(database_url=dsn), agents=[billing("one", ours), billing("two", theirs)])
    with pytest.raises(ConfigurationError, match=r"'billing' is claimed by two packages, clinic\.sql and other\.sql"):
        _ = split.components
