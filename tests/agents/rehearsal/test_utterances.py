"""Every committed utterance reaches the tool it should, on a real calendar.

A line of utterances.jsonl: `booked`, how many of `APPOINTMENTS` the person has; `said`; `calls`, each tool with its
arguments, in which an appointment's reference is written as its service; `answers`, what the answer contains.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from asyncpg import Pool

from moorline_agents.scheduling.tools import scheduling_tools

from .conftest import Person

APPOINTMENTS = (("Haircut", "2026-11-25T10:00"), ("Beard trim", "2026-11-27T15:00"))
LINES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
]


async def test_every_utterance(pool: Pool, subtests: pytest.Subtests) -> None:
    for number, line in enumerate(LINES):
        await pool.execute("DELETE FROM appointments")
        person = Person(pool, f"person {number}")
        with subtests.test(line["said"], booked=line["booked"]):
            await check(person, line)
        await person.aclose()


async def check(person: Person, line: dict[str, Any]) -> None:
    services: dict[str, str] = {}
    for service, start in APPOINTMENTS[: line["booked"]]:
        booked = await person.call("book", service=service, start=start)
        services[booked["appointment"]["reference"]] = service

    answer = await person.say(line["said"])

    calls = [
        [tool, {name: services.get(value, value) for name, value in arguments.items()}]
        for tool, arguments in answer.calls
    ]
    assert calls == line["calls"]
    assert line["answers"] in answer.text
    handed_over = bool(calls) and calls[-1][0] == "hand_over"
    assert bool(answer.text) is not handed_over


def test_the_utterances_reach_every_tool() -> None:
    reached = {tool for line in LINES for tool, _ in line["calls"]}
    assert reached == {tool.name for tool in scheduling_tools()} | {"hand_over", "end_session"}
    assert len(LINES) >= 60
