"""The examples of docs/checks.md work as they stand."""

import re
from pathlib import Path
from typing import Any

from moorline import Agent, Moorline, Settings
from moorline.testing import Script
from moorline_agents.transport import rule_client

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"


def example_with(word: str) -> str:
    examples: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return next(each for each in examples if word in each)


async def test_the_answer_of_the_page_is_read_by_a_person_and_a_program(settings: Settings) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    exec(example_with("output=Triage"), names)  # noqa: S102 - our own page
    script = Script('{"urgency": "today", "advice": "Come in before noon."}')
    async with Moorline(settings, agents=[names["triage"]], client=lambda: rule_client(script)) as moorline:
        reply = await moorline.run("my tooth hurts", {"device_id": "d1"})
    assert (reply, reply.output.urgency) == ("Come in before noon.", "today")


async def test_the_agent_of_the_page_checks_what_is_said(settings: Settings) -> None:
    asked: list[str] = []

    async def moderation(text: str) -> bool:
        asked.append(text)
        return "weather" not in text

    names: dict[str, Any] = {"moderation": moderation}
    exec(example_with("input_checks"), names)  # noqa: S102 - our own page
    desk: Agent = names["desk"]
    script = Script("I noted 4111 1111 1111 1111. Anything else?")
    async with Moorline(settings, agents=[desk], client=lambda: rule_client(script)) as moorline:
        context = {"device_id": "d1"}
        reply = await moorline.run("My card is 4111-1111-1111-1111", context)
        assert reply == "I noted [card number]. Anything else?"
        assert await moorline.run("the weather?", context) == "I can only help with your appointments."
    assert asked == ["My card is [card number]", "the weather?"]
    assert script.requests[0].messages[1]["content"] == "My card is [card number]"
