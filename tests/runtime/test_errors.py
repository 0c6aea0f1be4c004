"""All errors are in one place, and each says whether trying again helps."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from moorline import Agent, Moorline, Settings, ToolContext, TurnFailed, errors, tool
from moorline.errors import MoorlineError, UsageError
from moorline_agents import ToolRefused
from moorline_agents.transport import rule_client

from .conftest import Open, agent, counting

RETRYABLE = {
    "AgentError": True,
    "AlreadyLinked": False,
    "BadExport": False,
    "CheckFailed": True,
    "ConfigurationError": False,
    "AnswerCutOff": False,
    "ContextOverflow": False,
    "ErasureFailed": False,
    "ExportBroken": True,
    "FileUnavailable": True,
    "InternalError": False,
    "InvalidContext": False,
    "InvalidDeviceID": False,
    "InvalidMessage": False,
    "InvalidMetadata": False,
    "LinkRefused": False,
    "MessageSetAside": False,
    "MoorlineError": False,
    "NothingWaits": False,
    "SchemaMismatch": False,
    "SessionBusy": True,
    "StaleTurn": True,
    "StateDamaged": False,
    "StoreUnavailable": True,
    "TooManyTries": True,
    "ToolRefused": False,
    "TransactionError": False,
    "TransactionTooLong": False,
    "TurnCancelled": True,
    "TurnNotKept": False,
    "TurnTimeout": True,
    "UsageError": False,
}


def kinds(error: type[BaseException]) -> Iterator[type[BaseException]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds(kind)


def test_every_error_of_ours_can_be_imported_from_one_place() -> None:
    found = {kind for kind in kinds(MoorlineError) if kind.__module__.startswith("moorline")}
    # A load test tells itself what its target answered.
    ours = {kind for kind in found if not kind.__module__.startswith("moorline.load.")}
    assert ours | {ToolRefused} == {getattr(errors, name) for name in errors.__all__}


def test_every_error_says_whether_trying_again_helps() -> None:
    shown = {name: getattr(errors, name).retryable for name in errors.__all__ if name != "ModelError"}
    assert shown == RETRYABLE
    assert [errors.ModelError("down", retryable=answer).retryable for answer in (True, False)] == [True, False]


async def test_a_moorline_that_is_not_open_says_so(open_moorline: Open) -> None:
    moorline = open_moorline()
    with pytest.raises(UsageError, match="async with"):
        await moorline.run("hair please", {"device_id": "d1"})
    [failed] = [event async for event in moorline.stream("hair please", {"device_id": "d1"})]
    assert isinstance(failed, TurnFailed)
    assert isinstance(failed.error, UsageError)
    async with moorline:
        pass
    for use in (moorline.session, moorline.transcript, moorline.erase):
        with pytest.raises(UsageError, match="async with"):
            await use("d1")
    await moorline.close()


async def test_a_moorline_is_opened_once_at_a_time(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        with pytest.raises(UsageError, match="already open"):
            await moorline.__aenter__()
        assert await moorline.run("hair please", {"device_id": "d1"}) == "hair 1: hair please"
    async with moorline:
        assert await moorline.run("next", {"device_id": "d1"}) == "hair 2: next"


async def test_a_moorline_that_could_not_be_opened_may_be_opened_later(dsn: str, empty_dsn: str) -> None:
    moorline = Moorline(Settings(database_url=empty_dsn), agents=[agent("hair")], client=lambda: rule_client(counting))
    for _ in range(2):
        with pytest.raises(errors.SchemaMismatch):
            await moorline.__aenter__()


def test_a_tool_that_could_never_work_says_what_to_write() -> None:
    async def find(arguments: Settings, context: ToolContext) -> None:
        """Finds."""

    def wait(arguments: Settings, context: ToolContext) -> None:
        """Waits."""

    with pytest.raises(TypeError, match=r"Write `@tool\(\)` with parentheses"):
        tool(find)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="`async def wait"):
        tool()(wait)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot name an agent"):
        Agent(name="a b", description="", instructions="")


async def test_an_error_of_an_agents_code_says_where_it_was_raised_and_nothing_of_what_was_said(
    open_moorline: Open,
) -> None:
    def broken(_: ToolContext) -> str:
        return str(json.loads("hair secret"))

    ours = replace(agent("hair"), briefing=broken)
    async with open_moorline(agents=[ours]) as moorline:
        with pytest.raises(
            errors.AgentError, match=r"JSONDecodeError: test_errors.py, line \d+, in broken\)"
        ) as failed:
            await moorline.run("hair secret", {"device_id": "d1"})
    assert "secret" not in str(failed.value)
