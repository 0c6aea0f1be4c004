"""What was decided about an answer holds: in a rerun, whatever has changed by then, and after a turn that failed, when
the question is answered again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from moorline import Moorline, Reply, Settings, execution
from moorline.errors import AgentError, NothingWaits, StaleTurn
from moorline.manager import AgentProtocol
from moorline_agents.agent import Agent
from moorline_agents.tools import ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client

from .asking import Meaning, Nothing, calling, desk, plainly, resumed
from .claims import Connection, expire_lease
from .runtimes import Stall, after_tools, execute, runtime, say
from .test_asking import booked, bookings

__all__ = ["bookings"]

RESUME = "(a Resume)"


def opened(dsn: str, rules: Rules, *agents: AgentProtocol) -> Moorline:
    """A runtime in which the desk is routed to."""

    def routing(request: ModelRequest) -> Any:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),))
        return rules(request)

    return Moorline(Settings(database_url=dsn), agents=agents, client=lambda: rule_client(routing))


class Failing:
    """Rules that fail the first time they are shown what a tool gave."""

    def __init__(self, rules: Rules = calling) -> None:
        self._rules = rules
        self._failed = False

    def __call__(self, request: ModelRequest) -> Any:
        if after_tools(request) and not self._failed:
            self._failed = True
            raise LookupError
        return self._rules(request)


def paying(done: list[Any], *, idempotent: bool) -> Agent:
    """An agent whose tool fails after it has paid for the first time."""

    @tool(effect="outside", confirm="Pay?", idempotent=idempotent)
    async def pay(_: Nothing, context: ToolContext) -> str:
        """Pays."""
        done.append(context.idempotency_key)
        if len(done) == 1:
            raise LookupError
        return "paid"

    return Agent(name="desk", description="pays", instructions="desk", tools=[pay])


async def cut_off(
    stack: AsyncExitStack, dsn: str, connection: Connection, *, model: Meaning, done: list[Any], answer: str
) -> Reply:
    """A process asks whether to book, books with the answer, and is cut off before it can commit."""
    stall = Stall(after_tools)

    async def dies(request: ModelRequest) -> ModelReply:
        if after_tools(request):
            await stall(request)
        return model(request)

    dying = await stack.enter_async_context(runtime(dsn, dies, agent=desk(done)))
    asked = await say(dying, "book")
    answers = resumed(dying, asked, "yes") if answer == RESUME else say(dying, answer, "m2")
    running = asyncio.create_task(answers)

    async def stop() -> None:
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await running

    stack.push_async_callback(stop)
    await stall.reached.wait()
    await expire_lease(connection)
    return asked


@pytest.mark.parametrize("answer", ["yes", "ja gern", RESUME])
@pytest.mark.parametrize("meanwhile", ["it expires", "another agent takes the session", "the model reads it anew"])
async def test_a_rerun_finds_the_answer_that_the_first_run_found(
    bookings: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, answer: str, meanwhile: str
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    done, model = list[Any](), Meaning({"ja gern": plainly("yes")})
    async with AsyncExitStack() as stack:
        asked = await cut_off(stack, bookings, connection, model=model, done=done, answer=answer)
        model.means = {}
        async with opened(bookings, model, desk(done), desk([], name="other")) as moorline:
            if meanwhile == "it expires":
                await connection.execute(
                    "UPDATE conversation_turns SET interrupt = jsonb_set(interrupt, '{value,expires_at}',"
                    " '\"2026-01-01T00:00:00+00:00\"')"
                )
            if meanwhile == "another agent takes the session":
                await connection.execute("UPDATE conversation_states SET active_agent = 'other'")
            answers = resumed(moorline, asked, "yes") if answer == RESUME else say(moorline, answer, "m2")
            assert await answers == 'book | {"at": 9, "booked": "table"}'
    assert (len(done), await booked(bookings)) == (1, 1)


@pytest.mark.parametrize("how", ["in words", "by a Resume"])
@pytest.mark.parametrize("verb", ["book", "pay"])
async def test_a_second_yes_after_a_turn_that_failed_does_not_do_it_again(bookings: str, how: str, verb: str) -> None:
    """The call was made before the turn of the first yes failed; it has the result that it had then."""
    done = list[Any]()
    async with runtime(bookings, Failing(), agent=desk(done)) as moorline:
        asked = await say(moorline, verb)
        with pytest.raises(AgentError):
            await say(moorline, "yes", "m2")
        told = await say(moorline, "yes", "m3") if how == "in words" else await resumed(moorline, asked, "yes")
        assert told.endswith('{"at": 9, "booked": "table"}' if verb == "book" else '{"paid": "table"}')
        # The one that failed is a message like any other now, whose agent knows what was done.
        late = await say(moorline, "yes", "m2")
        assert "What they did stands" in late
        assert f"- {verb} " in late
        assert not (await say(moorline, "hello")).startswith("<briefing>")
    assert len(done) == 1


async def test_a_call_that_ran_before_its_turn_failed_has_its_result_also_if_the_question_is_closed(
    bookings: str,
) -> None:
    done = list[Any]()
    async with runtime(bookings, Failing(), agent=desk(done)) as moorline:
        await say(moorline, "book")
        with pytest.raises(AgentError):
            await say(moorline, "yes", "m2")
        assert (await say(moorline, "hello")).endswith(' hello | {"at": 9, "booked": "table"}')
        await say(moorline, "yes", "m2")
        assert await say(moorline, "and?") == 'and? | {"at": 9, "booked": "table"}'
    assert len(done) == 1


async def test_a_closed_question_says_that_the_outcome_of_its_call_is_unknown(bookings: str) -> None:
    done = list[Any]()
    async with runtime(bookings, calling, agent=paying(done, idempotent=True)) as moorline:
        await say(moorline, "pay")
        with pytest.raises(AgentError):
            await say(moorline, "yes", "m2")
        told = (await say(moorline, "hello")).rpartition(" hello | ")[2]
    assert "outcome_unknown" in told
    assert "Do not call it again" in told


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_second_yes_after_a_call_with_an_unknown_outcome(bookings: str, idempotent: bool) -> None:
    """It is made again only if that does no harm, and then under the same key."""
    done = list[Any]()
    async with runtime(bookings, calling, agent=paying(done, idempotent=idempotent)) as moorline:
        await say(moorline, "pay")
        with pytest.raises(AgentError):
            await say(moorline, "yes", "m2")
        told = await say(moorline, "yes", "m3")
        assert ("outcome_unknown" in told) is not idempotent
    assert done == done[:1] * (2 if idempotent else 1)


async def test_words_and_a_resume_at_the_same_time_are_one_answer_and_a_message(bookings: str) -> None:
    done = list[Any]()
    async with (
        runtime(bookings, Meaning(), agent=desk(done)) as here,
        runtime(bookings, Meaning(), agent=desk(done)) as there,
    ):
        for number in range(6):
            device = f"d{number}"
            asked = await say(here, "book", device=device)
            ways = [resumed(here, asked, "yes", device), say(there, "yes", device=device)]
            replies = await asyncio.gather(*ways[:: (-1) ** number], return_exceptions=True)
            answered = [reply for reply in replies if isinstance(reply, Reply) and reply.startswith("book | ")]
            late = [reply for reply in replies if reply not in answered]
            assert len(answered) == 1
            assert isinstance(late[0], NothingWaits) or str(late[0]).startswith("yes | ")
    assert len(done) == await booked(bookings) == 6


async def test_a_device_that_joins_leaves_its_own_question_and_may_answer_that_of_its_new_conversation(
    bookings: str,
) -> None:
    done = list[Any]()
    async with runtime(bookings, calling, agent=desk(done)) as moorline:
        await say(moorline, "book at 9")
        left = await say(moorline, "book at 10", device="d2")
        await moorline.link("d2", await moorline.link_code("d1"))
        with pytest.raises(NothingWaits):
            await resumed(moorline, left, "yes", "d2")
        assert await say(moorline, "yes", device="d2") == 'book at 9 | {"booked": "table", "at": 9}'
    assert [call[2] for call in done] == [9]


async def test_a_question_is_answered_whatever_has_become_of_the_lock(dsn: str) -> None:
    async with runtime(dsn, calling, agent=desk([])) as moorline:
        await say(moorline, "menu")
        await execute(
            dsn,
            "UPDATE conversation_states SET locked_at = now() - interval '9 days',"
            " last_active_at = now() - interval '9 days'",
        )
        assert await moorline.session("d1") is None
        assert await say(moorline, "fish") == "How much of it? (little / much)"
        await moorline.clear_session_lock("d1")
        assert (await say(moorline, "much")).startswith('menu | {"dish": "fish"')


async def test_what_a_tool_remembers_before_it_asks_is_kept_only_with_what_it_does(bookings: str) -> None:
    @tool(effect="database")
    async def note(_: Nothing, context: ToolContext) -> str:
        """Notes, and asks whether to."""
        await context.memory.aput(("notes",), "noted", {})
        return await context.ask("Sure?", options=("yes", "no"))

    @tool()
    async def look(_: Nothing, context: ToolContext) -> int:
        """Counts."""
        return len(await context.memory.asearch(()))

    agent = Agent(name="desk", description="notes", instructions="desk", tools=[note, look])
    async with runtime(bookings, calling, agent=agent) as moorline:
        await say(moorline, "note")
        assert await say(moorline, "look") == "look | 0"
        await say(moorline, "note")
        await say(moorline, "yes")
        assert await say(moorline, "look") == "look | 1"
