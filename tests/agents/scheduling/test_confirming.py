"""Before it books, moves or cancels, the scheduling agent asks, with what the change would come to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from moorline import Moorline, Settings
from moorline.defaults import shipped_agents
from moorline.testing import Call, ModelReply, Script, rule_client
from moorline_agents.agent import Agent
from moorline_agents.scheduling.agent import scheduling
from moorline_agents.scheduling.demo import seed_demo
from moorline_agents.scheduling.wording import ENGLISH, Wording, wording_in

if TYPE_CHECKING:
    from tests.agents.scheduling.conftest import Business

DEVICE = {"device_id": "d1"}


async def test_by_default_it_asks_and_a_yes_in_words_books(business: Business, dsn: str) -> None:
    async with business.pool.acquire() as connection:
        await seed_demo(connection)
    booked = "SELECT count(*) FROM appointments WHERE status = 'booked'"
    async with Moorline(Settings(database_url=dsn)) as moorline:
        await moorline.run("I want to book a haircut", DEVICE)
        question = await moorline.run("The first one, please", DEVICE)
        assert question.startswith("Shall I book Haircut with ")
        assert question.interrupt is not None
        assert question.interrupt.options == ("yes", "no")
        assert await business.pool.fetchval(booked) == 0
    async with Moorline(Settings(database_url=dsn)) as moorline:
        assert "I leave it as it is" in await moorline.run("No, thanks", DEVICE)
        assert "1." in await moorline.run("When can I get a haircut?", DEVICE)
        await moorline.run("The first one, please", DEVICE)
        reply = await moorline.run("Yes please!", DEVICE)
        assert "The reference is " in reply
        assert await business.pool.fetchval(booked) == 1
        question = await moorline.run("Please cancel my appointment", DEVICE)
        assert question.startswith("Shall I cancel Haircut with ")
        assert await business.pool.fetchval(booked) == 1
        assert (await moorline.run("yes", DEVICE)).startswith("Cancelled: ")
        assert await business.pool.fetchval(booked) == 0


async def test_it_asks_in_its_own_words_and_a_move_says_from_when_to_when(salon: Business, dsn: str) -> None:
    salon.now = datetime.now(UTC)
    slots = (await salon.call("d1", "find_slots", service="Haircut"))["slots"]
    first, second = slots[0]["start"], slots[1]["start"]
    script = Script(
        ModelReply(calls=(Call(name="book", arguments={"service": "Haircut", "start": first}),)),
        "Gebucht.",
        ModelReply(calls=(Call(name="book", arguments={"service": "Haircut", "start": first}),)),
        "Schon gebucht.",
        ModelReply(calls=(Call(name="move", arguments={"start": second}),)),
        "Verschoben.",
    )
    agent = scheduling(language="German")
    async with Moorline(Settings(database_url=dsn), agents=[agent], client=lambda: rule_client(script)) as moorline:
        question = await moorline.run("Haarschnitt", DEVICE)
        assert question.startswith("Soll ich Haircut bei ")
        assert question.endswith(" Uhr buchen? (ja / nein)")
        assert await moorline.run("Ja!", DEVICE) == "Gebucht."
        # What changes nothing needs no yes.
        assert await moorline.run("Haarschnitt", DEVICE) == "Schon gebucht."
        question = await moorline.run("lieber die zweite", DEVICE)
        assert " auf " in question
        assert question.endswith(" verschieben? (ja / nein)")
        assert await moorline.run("ja", DEVICE) == "Verschoben."
    assert await salon.pool.fetchval("SELECT count(*) FROM appointments") == 1


@pytest.mark.usefixtures("salon")
async def test_what_cannot_be_done_is_not_asked_about(dsn: str) -> None:
    script = Script(
        ModelReply(calls=(Call(name="book", arguments={"service": "Haircut", "start": "2001-01-01T10:00"}),)),
        "That is over.",
        ModelReply(calls=(Call(name="cancel"),)),
        "There is none.",
    )
    async with Moorline(
        Settings(database_url=dsn), agents=[scheduling()], client=lambda: rule_client(script)
    ) as moorline:
        assert await moorline.run("book", DEVICE) == "That is over."
        assert await moorline.run("cancel", DEVICE) == "There is none."
    assert "in the past" in str(script.requests[1].messages[-1]["content"])


def test_without_confirmations_no_tool_asks() -> None:
    def asking(agent: Agent) -> list[str]:
        return [tool.name for tool in agent.own_tools if tool.confirm is not None]

    assert asking(scheduling()) == ["book", "move", "cancel"]
    assert asking(scheduling(confirm=False)) == []
    assert asking(shipped_agents(Settings(database_url=None))[0]) == ["book", "move", "cancel"]
    assert asking(shipped_agents(Settings(database_url=None, confirm_bookings=False))[0]) == []


@pytest.mark.parametrize(
    ("language", "yes"),
    [
        ("German", "ja"),
        ("de-AT", "ja"),
        ("de_CH", "ja"),
        (" Deutsch (Sie)", "ja"),
        ("en-GB", "yes"),
        (None, "yes"),
        ("Danish", "yes"),
    ],
)
def test_a_language_may_name_a_region(language: str | None, yes: str) -> None:
    assert wording_in(language).yes == yes


@pytest.mark.parametrize(
    "wrong", [{"book": "Book {what}?"}, {"when": "{clock}"}, {"yes": "no"}, {"move": ""}, {"weekdays": ()}]
)
def test_a_wording_that_could_not_be_asked_is_refused(wrong: dict[str, str]) -> None:
    parts = {
        name: getattr(ENGLISH, name) for name in ("book", "move", "cancel", "yes", "no", "when", "weekdays", "months")
    }
    with pytest.raises(ValueError, match="wording"):
        Wording(**parts | wrong)
