"""Bad input is refused with an error that says what to do, and leaves the conversation as it was."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from moorline import Moorline, Resume, Settings
from moorline.context import check_call
from moorline.errors import (
    AgentError,
    ConfigurationError,
    InvalidContext,
    InvalidDeviceID,
    InvalidMessage,
    MoorlineError,
    SchemaMismatch,
    StoreUnavailable,
)
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest, RawReply, Reply

from .conftest import Open, agent, counting


def nested(levels: int) -> Any:
    """A list in a list in a list …"""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
async def talking(open_moorline: Open) -> Any:
    """A runtime with a device that has said one thing."""
    async with open_moorline() as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        yield moorline
        assert await moorline.run("next", {"device_id": "d1"}) == "hair 2: next", "the conversation has changed"


@pytest.mark.parametrize("device", ["", " ", "with space", "x" * 129, "nul\0", "line\nfeed", 7, None, nested(5_000)])
async def test_a_wrong_device_id_is_refused(talking: Moorline, device: object) -> None:
    with pytest.raises((InvalidDeviceID, InvalidContext)) as caught:
        await talking.run("hello", {"device_id": device})
    assert "with space" not in str(caught.value)


async def test_only_uuids_are_devices_where_the_setting_says_so(dsn: str) -> None:
    async with Moorline(Settings(database_url=dsn, device_ids="uuid"), agents=[agent("hair")]) as moorline:
        with pytest.raises(InvalidDeviceID, match="UUID"):
            await moorline.run("hello", {"device_id": "d1"})


@pytest.mark.parametrize(
    ("message", "remedy"), [("", "empty"), (" \n", "empty"), ("x" * 1_000_000, "in parts"), (b"bytes", "text")]
)
async def test_a_message_that_is_none_is_refused(talking: Moorline, message: Any, remedy: str) -> None:
    with pytest.raises(InvalidMessage, match=remedy):
        await talking.run(message, {"device_id": "d1"})


@pytest.mark.parametrize(
    ("context", "remedy"),
    [
        ({}, "device_id, user_id, wa_id, session_id"),
        ([], "mapping"),
        ({"device_id": "d1", "when": asyncio}, "'when' is not JSON"),
        ({"device_id": "d1", "price": float("nan")}, "'price' is not JSON"),
        ({"device_id": "d1", "form": nested(600)}, "'form' is not JSON .nested more than 64"),
        ({"device_id": "d1", "form": nested(900)}, "'form' is not JSON .nested more than 64"),
        ({"device_id": "d1", "form": nested(100_000)}, "'form' is not JSON .nested more than 64"),
        ({"device_id": "d1", "form": "x" * 300_000}, "'form' is not JSON .300,002 characters"),
        ({"device_id": "d1", "one": "x" * 200_000, "two": "x" * 200_000}, "400,010 characters of JSON"),
        ({"device_id": "d1", "message_id": ""}, "message_id"),
        ({"device_id": "d1", "message_id": " \n"}, "message_id"),
        ({"device_id": "d1", "message_id": "m" * 201}, "message_id"),
        ({"device_id": "d1", "message_id": 10**5000}, "message_id"),
        ({"device_id": "d1", "message_id": 1.5}, "message_id"),
        ({"device_id": "d1", "message_id": True}, "message_id"),
        ({"device_id": "d1", "on_busy": "shout"}, "on_busy"),
        ({"device_id": "d1", "on_busy": nested(5_000)}, "on_busy must be one of .*, not list"),
        ({"device_id": "d1", "on_cancel": 10**5000}, "on_cancel must be one of .*, not int"),
        ({"device_id": "d1", "timeout": -(10**5000)}, "timeout"),
        ({"device_id": "d1", "timeout": nested(5_000)}, "timeout"),
        ({"device_id": nested(5_000), "wa_id": nested(5_000)}, "device_id and wa_id differ"),
        ({"device_id": "d1", "channel": nested(5_000)}, "channel must be"),
        ({"device_id": "d1", "message_id": nested(5_000)}, "message_id"),
        ({"device_id": "d1", "timeout": -1}, "timeout"),
        ({"device_id": "d1", "timeout": float("nan")}, "timeout"),
        ({"device_id": "d1", "timeout": 10**400}, "timeout"),
    ],
)
async def test_a_context_that_cannot_be_used_is_refused(talking: Moorline, context: Any, remedy: str) -> None:
    with pytest.raises(InvalidContext, match=remedy):
        await talking.run("hello", context)


@pytest.mark.parametrize(
    ("resume", "remedy"),
    [
        (Resume(interrupt_id="i", value=float("nan")), "must be JSON"),
        (Resume(interrupt_id="i", value=nested(900)), "must be JSON .nested more than 64"),
        (Resume(interrupt_id=7, value="yes"), "`id` of a reply's interrupt"),  # type: ignore[arg-type]
        (Resume(interrupt_id="i" * 10_000, value="yes"), "`id` of a reply's interrupt"),
    ],
)
async def test_an_answer_that_is_none_is_refused(talking: Moorline, resume: Resume, remedy: str) -> None:
    with pytest.raises(InvalidMessage, match=remedy):
        await talking.run(resume, {"device_id": "d1"})


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("half an emoji \ud83d", "half an emoji \ufffd"),
        ("\ude00 the other half", "\ufffd the other half"),
        ("both halves \ud83d\ude00", "both halves \U0001f600"),
        ("\U0001f468\u200d\U0001f469 and a nul \0", "\U0001f468\u200d\U0001f469 and a nul \0"),
    ],
)
async def test_a_text_with_half_a_character_is_answered(
    open_moorline: Open, model: Script, sent: str, taken: str
) -> None:
    async with open_moorline() as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        assert await moorline.run(sent, {"device_id": "d1"}) == f"hair 2: {taken}"
        assert (await moorline.transcript("d1"))[-1].texts == (taken,)


async def test_half_a_character_in_a_context_reaches_the_tools_as_a_replacement(open_moorline: Open) -> None:
    call = check_call("hi", {"device_id": "d1", "name\ud83d": ["Jo\ud83d", "\ud83d\ude00"]}, open_moorline().settings)
    assert call.message.values == {"name\ufffd": ["Jo\ufffd", "\U0001f600"]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (4711, "4711"),
        (-10, "-10"),
        (UUID("0f8fad5b-d9cb-469f-a165-70867728950e"), "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("<CAHd abc=xyz@mail example.com>", "<CAHd abc=xyz@mail example.com>"),
        ("half \ud83d", "half \ud83d"),
        ("nul \0", "nul \0"),
    ],
)
async def test_a_message_id_of_any_spelling_is_taken_as_text(open_moorline: Open, first: Any, second: str) -> None:
    async with open_moorline() as moorline:
        reply = await moorline.run("hair please", {"device_id": "d1", "message_id": first})
        again = await moorline.run("hair please", {"device_id": "d1", "message_id": second})
        other = await moorline.run("hair please", {"device_id": "d1", "message_id": f"{second}."})
    assert (again, again.replayed, other.replayed) == (reply, True, False)


async def test_a_database_that_does_not_answer() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        dsn = f"postgresql://moorline@127.0.0.1:{nobody.getsockname()[1]}/moorline"
        with pytest.raises(StoreUnavailable):
            async with Moorline(Settings(database_url=dsn), agents=[agent("hair")]):
                pass


async def test_a_database_without_the_schema(empty_dsn: str) -> None:
    with pytest.raises(SchemaMismatch, match="moorline migrate"):
        async with Moorline(Settings(database_url=empty_dsn), agents=[agent("hair")]):
            pass


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ("DELETE FROM moorline_schema WHERE component = 'moorline'", "moorline migrate"),
        ("UPDATE moorline_schema SET oldest_code = 99 WHERE component = 'moorline'", "too new.*Upgrade"),
    ],
)
async def test_a_database_with_an_older_or_a_too_new_schema(dsn: str, change: str, remedy: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(change)
    await connection.close()
    with pytest.raises(SchemaMismatch, match=remedy):
        async with Moorline(Settings(database_url=dsn), agents=[agent("hair")]):
            pass


async def test_a_database_that_does_not_exist(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        async with Moorline(Settings(database_url=dsn.replace("/test_", "/none_")), agents=[agent("hair")]):
            pass


def saying(*odd: Reply) -> Any:
    """The counting model, except that it answers messages that begin with "odd" with the replies `odd`, in order."""
    left = list(odd)

    def rules(request: ModelRequest) -> Reply:
        said = request.said
        return left.pop(0) if said[-1] == "odd" and left else counting(request)

    return rules


@contextmanager
def whole(error: type[MoorlineError]) -> Iterator[None]:
    with pytest.raises(error) as caught:
        yield
    assert "odd" not in str(caught.value)


@pytest.mark.parametrize(
    "garbage",
    [
        RawReply(pieces=(b"<html>no stream</html>",), headers={"content-type": "text/event-stream"}),
        RawReply(pieces=(b"data: {broken\n\n",), headers={"content-type": "text/event-stream"}),
        RawReply(pieces=(b"",), headers={"content-type": "text/event-stream"}),
        ModelReply(text=""),
    ],
    ids=["html", "broken json", "empty stream", "empty answer"],
)
async def test_a_model_that_answers_garbage(open_moorline: Open, garbage: Reply) -> None:
    async with open_moorline(rules=saying(garbage, garbage, garbage)) as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        with whole(AgentError):
            await moorline.run("odd", {"device_id": "d1"})
        assert await moorline.run("next", {"device_id": "d1"}) == "hair 2: next"


async def test_a_router_model_that_names_no_agent_leaves_it_to_the_agent_for_everything(open_moorline: Open) -> None:
    async with open_moorline() as moorline:
        assert await moorline.run("who are you", {"device_id": "d1"}) == "desk 1: who are you"


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (Call(name="no_such_tool"), "There is no tool no_such_tool"),
        (Call(name="hand_over", arguments={"agent": "nobody", "reason": "x"}), "no agent 'nobody'"),
        (Call(name="hand_over", arguments={}), "no agent ''"),
        (Call(name="hand_over", arguments="no json"), "hand_over was not called: its arguments are no JSON"),
    ],
)
async def test_a_model_that_calls_what_is_not_there_is_told_so(open_moorline: Open, call: Call, complaint: str) -> None:
    seen: list[str] = []
    odd = saying(ModelReply(calls=(call,)))

    def rules(request: ModelRequest) -> Reply:
        seen.extend(str(message["content"]) for message in request.messages if message["role"] == "tool")
        reply: Reply = odd(request)
        return reply

    async with open_moorline(rules=rules) as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        assert await moorline.run("odd", {"device_id": "d1"}) == "hair 2: odd"
    assert complaint in seen[0]


async def test_a_model_that_never_stops_calling_tools(open_moorline: Open) -> None:
    async with open_moorline(rules=saying(*[ModelReply(calls=(Call(name="no_such_tool"),))] * 20)) as moorline:
        await moorline.run("hair please", {"device_id": "d1"})
        with whole(AgentError):
            await moorline.run("odd", {"device_id": "d1"})
        assert await moorline.run("next", {"device_id": "d1"}) == "hair 2: next"


@pytest.mark.parametrize("name", ["", "has space", "a" * 51, "route", "colon:name", "bar|name"])
def test_an_agent_whose_name_could_not_be_kept_is_refused_when_it_is_built(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an agent"):
        Agent(name=name, description="x", instructions="x")
