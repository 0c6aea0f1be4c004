"""A call that needs a yes runs with a yes to exactly its arguments, and then once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from moorline import Moorline, Replace, Settings, Texts, execution
from moorline.errors import AgentError, StaleTurn
from moorline_agents.agent import Agent
from moorline_agents.confirmation import Confirmation
from moorline_agents.tools import ToolContext, ToolRefused, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

from .asking import Booking, Meaning, Nothing, calling, desk, desk_tools, plainly, resumed
from .claims import Connection, expire_lease
from .runtimes import Stall, runtime, say
from .test_asking import booked, bookings

__all__ = ["bookings"]


async def test_it_is_asked_first_and_runs_only_with_a_yes(bookings: str) -> None:
    done = list[Any]()
    async with runtime(bookings, calling, agent=desk(done)) as moorline:
        question = await say(moorline, "book at 9")
        assert question == "Book the table at 9? (yes / no)"
        assert (await booked(bookings), done) == (0, [])
        told = await say(moorline, "No.")
        assert "The person did not agree, so book was not run" in told
        assert '"code": "not_confirmed"' in told
        await say(moorline, "book at 9")
        assert await say(moorline, "YES!") == 'book at 9 | {"booked": "table", "at": 9}'
        await say(moorline, "yes")
    assert (await booked(bookings), done) == (1, [("book", "table", 9, None)])


async def test_a_yes_with_a_condition_is_none_and_other_arguments_are_asked_about_anew(bookings: str) -> None:
    done = list[Any]()
    model = Meaning({"yes, but at ten": {"answers": True, "more": True, "answer": "yes"}, "Passt so": plainly("yes")})
    async with runtime(bookings, model, agent=desk(done)) as moorline:
        await say(moorline, "book at 9")
        assert "not_answered" in await say(moorline, "yes, but at ten")
        assert await say(moorline, "book at 10") == "Book the table at 10? (yes / no)"
        # A model that takes the number for part of a yes is not believed.
        model.means["yes but at 11"] = plainly("yes")
        assert "not_answered" in await say(moorline, "yes but at 11")
        assert await say(moorline, "book at 11") == "Book the table at 11? (yes / no)"
        assert await say(moorline, "Passt so") == 'book at 11 | {"booked": "table", "at": 11}'
    assert done == [("book", "table", 11, None)]


async def test_a_back_office_says_yes_and_the_tool_knows_who(bookings: str) -> None:
    done = list[Any]()
    async with runtime(bookings, calling, agent=desk(done)) as moorline:
        await resumed(moorline, await say(moorline, "book"), "yes", by="Eva")
        assert "Eva did not agree" in await resumed(moorline, await say(moorline, "book"), "no", by="Eva")
    assert done == [("book", "table", 9, "Eva")]


async def test_several_calls_of_one_answer_are_asked_about_one_by_one(bookings: str) -> None:
    done = list[Any]()

    def both(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "user":
            calls = (Call(name="book", arguments={"what": each}) for each in ("table", "room"))
            return ModelReply(calls=tuple(calls))
        return ModelReply(text="done")

    async with runtime(bookings, both, agent=desk(done)) as moorline:
        assert await say(moorline, "both") == "Book the table at 9? (yes / no)"
        assert await say(moorline, "no") == "Book the room at 9? (yes / no)"
        assert await say(moorline, "yes") == "done"
    assert done == [("book", "room", 9, None)]


@pytest.mark.parametrize("verb", ["book", "pay"])
@pytest.mark.parametrize("answer", ["yes", "ja gern"])
async def test_a_yes_whose_process_dies_runs_it_once(
    bookings: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, verb: str, answer: str
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    done, model = list[Any](), Meaning({"ja gern": plainly("yes")})
    stall = Stall(lambda request: request.messages[-1]["role"] == "tool")

    async def dies(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "tool":
            await stall(request)
        return model(request)

    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(runtime(bookings, dies, agent=desk(done)))
        await say(dying, verb)
        cut_off = asyncio.create_task(say(dying, answer, "m2"))
        await stall.reached.wait()
        await expire_lease(connection)
        async with runtime(bookings, model, agent=desk(done)) as moorline:
            assert f'"{"booked" if verb == "book" else "paid"}": "table"' in await say(moorline, answer, "m2")
        stall.go_on.set()
        with pytest.raises(StaleTurn):
            await cut_off
    assert len(done) == 1
    assert len(model.asked) == (answer != "yes")  # the reading of the first run stands


async def test_a_question_may_be_made_by_looking_things_up_and_a_yes_is_to_what_it_said(bookings: str) -> None:
    price = 3

    async def sure(booking: Booking, context: ToolContext) -> Confirmation:
        async with context.transaction() as connection:
            taken = await connection.fetchval("SELECT count(*) FROM bookings")
        if taken:
            raise ToolRefused("The table is taken.", code="taken")
        return Confirmation(question=f"Soll ich {booking.what} für {price} buchen?", yes="ja", no="nein")

    @tool(effect="database", confirm=sure)
    async def book(booking: Booking, context: ToolContext) -> dict[str, str]:
        """Books."""
        async with context.transaction() as connection:
            await connection.execute("INSERT INTO bookings VALUES ($1, $2)", context.device_id, booking.what)
        return {"booked": booking.what}

    agent = Agent(name="desk", description="books", instructions="desk", tools=[book])
    async with runtime(bookings, calling, agent=agent) as moorline:
        assert await say(moorline, "book") == "Soll ich table für 3 buchen? (ja / nein)"
        price = 4
        assert await say(moorline, "Ja") == "Soll ich table für 4 buchen? (ja / nein)"
        assert await say(moorline, "Ja") == 'book | {"booked": "table"}'
        assert await say(moorline, "book") == 'book | {"error": "The table is taken.", "code": "taken"}'


async def test_what_the_person_says_to_the_tool_is_no_yes_to_what_the_call_has_become(bookings: str) -> None:
    price, done = 3, list[Any]()

    async def sure(booking: Booking, context: ToolContext) -> str:
        return f"Book it for {price}?"

    @tool(effect="outside", confirm=sure)
    async def book(booking: Booking, context: ToolContext) -> dict[str, Any]:
        """Asks once more, then books."""
        side = await context.ask("Window or door?", options=("window", "door"))
        done.append((price, side))
        return {"booked": side}

    agent = Agent(name="desk", description="books", instructions="desk", tools=[book])
    async with runtime(bookings, calling, agent=agent) as moorline:
        assert await say(moorline, "book") == "Book it for 3? (yes / no)"
        assert await say(moorline, "yes") == "Window or door? (window / door)"
        price = 4
        assert await say(moorline, "window") == "Book it for 4? (yes / no)"
        assert done == []
        assert await say(moorline, "yes") == "Window or door? (window / door)"
        assert await say(moorline, "door") == 'book | {"booked": "door"}'
    assert done == [(4, "door")]


async def test_a_yes_is_to_the_arguments_as_a_check_has_left_them(bookings: str) -> None:
    free, done = 9, list[Any]()

    async def next_free(booking: Booking, context: ToolContext) -> Replace:
        return Replace(booking.model_copy(update={"hour": free}))

    agent = replace(desk(done), tools=[replace(desk_tools(done)["book"], check=next_free)])
    async with runtime(bookings, calling, agent=agent) as moorline:
        assert await say(moorline, "book at 8") == "Book the table at 9? (yes / no)"
        free = 10
        assert await say(moorline, "yes") == "Book the table at 10? (yes / no)"
        assert done == []
        assert await say(moorline, "yes") == 'book at 8 | {"booked": "table", "at": 10}'
    assert [call[2] for call in done] == [10]


async def test_a_number_is_no_yes(bookings: str) -> None:
    """Nobody knows whether it is the first option, or one o'clock."""
    done = list[Any]()
    async with runtime(bookings, Meaning({"1": plainly("yes")}), agent=desk(done)) as moorline:
        for said in ("1", "yes;", "yes\N{ARMENIAN QUESTION MARK}"):
            await say(moorline, "book at 9")
            assert "not_answered" in await say(moorline, said)
    assert (done, await booked(bookings)) == ([], 0)


async def test_the_words_are_those_of_the_app(bookings: str) -> None:
    done = list[Any]()
    texts = Texts(yes="oui", no="non", choose="{question} Répondez par {options}.")
    async with Moorline(
        Settings(database_url=bookings), agents=[desk(done)], client=lambda: rule_client(calling), texts=texts
    ) as moorline:
        assert await say(moorline, "book") == "Book the table at 9? Répondez par oui / non."
        assert "booked" in await say(moorline, "Oui")


@pytest.mark.parametrize(
    ("texts", "why"),
    [({"yes": "no"}, "different"), ({"choose": "{questions}"}, "only"), ({"choose": "really"}, "must show")],
)
def test_words_that_could_not_be_used_are_refused(texts: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Texts(**texts)


@pytest.mark.parametrize("confirm", ["Book {when}?", "Book {what", " ", "{0}", "{what.real} {}"])
def test_a_template_that_could_never_be_filled_is_refused(confirm: str) -> None:
    with pytest.raises(ValueError, match=r"Tool book: confirm"):
        desk([], confirm=confirm)


async def test_a_function_that_makes_no_question_lets_nothing_run(bookings: str) -> None:
    done = list[Any]()

    async def hangs(booking: Booking, context: ToolContext) -> str:
        await asyncio.sleep(60)
        return "Sure?"

    makes: dict[str, Any] = {
        "wrong": lambda *_: True,
        "forgets": lambda *_: None,
        "blank": lambda *_: " ",
        "raises": lambda *_: 1 / 0,
        "hangs": hangs,
    }
    for name, confirm in makes.items():
        book = replace(desk_tools(done)["book"], confirm=confirm, timeout=0.1)
        async with runtime(bookings, calling, agent=replace(desk(done), tools=[book])) as moorline:
            if name == "hangs":
                assert "timed_out" in await say(moorline, "book", device=name)
            else:
                with pytest.raises(AgentError):
                    await say(moorline, "book", device=name)
            assert (await say(moorline, "hello", device=name)).startswith("hello")
    assert (done, await booked(bookings)) == ([], 0)


def test_only_a_text_or_a_function_can_ask_for_a_yes() -> None:
    with pytest.raises(TypeError, match="must be a text or a function"):

        @tool(confirm=3)  # type: ignore[arg-type]
        async def book(_: Nothing, context: ToolContext) -> None:
            """Books."""
