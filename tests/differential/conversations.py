"""Random conversations: what is said in which process, and what goes wrong at the same time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from random import Random
from typing import Any, Literal

from .world import AGENTS, GRAPHS, KIT, Fault

PROCESSES: tuple[str | None, ...] = (None, None, "nails", "diary", "hair")
"""The agent that is missing in each process."""

WHOLE = (0, 1)
"""The processes that have all agents."""

Kind = Literal["say", "again", "resume", "die", "burst", "recover", "requeue", "cold", "expire", "edit", "erase"]

KINDS: dict[Kind, int] = {
    "say": 50,
    "again": 9,
    "resume": 4,
    "die": 9,
    "burst": 2,
    "recover": 2,
    "requeue": 2,
    "cold": 3,
    "expire": 3,
    "edit": 4,
    "erase": 1,
}
"""How often each kind of step happens."""

THINGS = ("cup", "book", "lamp", "noodles", "nothing", "fail1", "fail2", "fail3")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that happens on a device."""

    kind: Kind
    process: int = 0
    texts: tuple[str, ...] = ()
    """What is said; several texts are messages that come at once."""
    values: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[int, Fault] = field(default_factory=dict)
    answer: Any = None
    agent: str = ""
    """The agent whose history is edited."""
    streamed: bool = False
    answers: bool = False
    """Whether the answer is given instead, if a question waits for one."""


def conversation(seed: int, *, length: int, away: int = 0) -> list[Step]:
    """`length` steps, the same for a seed; `away` of them in the middle are short and in processes that lack an agent
    that was there before. In the end every agent is asked for what it knows."""
    chance = Random(f"{seed} {length} {away}")  # noqa: S311 - chance that can be repeated, no secret
    numbers = iter(range(10**6))
    steps = list(islice(_steps(chance, numbers), length))
    if away:
        lacking = chance.choice(range(len(WHOLE), len(PROCESSES)))
        gone = [
            Step(kind="say", process=lacking, texts=(_program(chance, numbers, size=0.3),), faults={})
            for _ in range(away)
        ]
        middle = length // 2
        steps[middle:middle] = gone
    return [*steps, *_roll_call(chance, numbers)]


def _roll_call(chance: Random, numbers: Iterator[int]) -> Iterator[Step]:
    """The message goes from agent to agent, and each tells what it was shown."""
    for last in GRAPHS:
        parts = {name: [[[["hand_over", {"agent": other}]]]] for name, other in pairwise((*KIT, last))}
        yield Step(kind="expire")
        text = json.dumps({"n": next(numbers), "route": KIT[0], "parts": parts})
        yield Step(kind="say", texts=(text,), process=chance.choice(WHOLE))


def _steps(chance: Random, numbers: Iterator[int]) -> Iterator[Step]:
    while True:
        if chance.random() < 0.02:
            yield from _doomed(chance, numbers)
        yield _step(chance, numbers)


def _doomed(chance: Random, numbers: Iterator[int]) -> Iterator[Step]:
    """A message that fails whatever is done, until it is set aside; and once more after that."""
    name = chance.choice(KIT[:2])
    rounds = [["chime", "cup"]], [["book", "fatal"]]
    text = json.dumps({"n": next(numbers), "route": name, "parts": {name: [rounds]}})
    yield Step(kind="expire")
    yield Step(kind="say", texts=(text,))
    for _ in range(3):
        yield Step(kind="again", process=chance.choice(WHOLE))
    yield Step(kind="requeue", process=chance.choice(WHOLE))


def _step(chance: Random, numbers: Iterator[int]) -> Step:
    kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
    process = chance.choices(range(len(PROCESSES)), (10, 5, 2, 1, 1))[0]
    values = {"mood": chance.choice(("glad", "sad"))} if chance.random() < 0.2 else {}
    match kind:
        case "burst":
            count = chance.randint(2, 3)
            return Step(
                kind=kind,
                process=process,
                texts=tuple(_program(chance, numbers) for _ in range(count)),
                faults={1: "stop"},
            )
        case "die":
            moment = chance.randint(1, 6)
            return Step(kind=kind, process=process, texts=(_program(chance, numbers),), faults={moment: "die"})
        case "edit":
            return Step(kind=kind, process=chance.choice(WHOLE), agent=chance.choice(KIT), texts=(f"e{next(numbers)}",))
        case _:
            if chance.random() < 0.06:
                return Step(kind="expire")
            text = _program(chance, numbers)
            faults: dict[int, Fault] = {}
            if chance.random() < 0.12:
                faults = {chance.randint(1, 6): chance.choice(("break", "refuse", "busy"))}
            return Step(
                kind=kind,
                process=process,
                texts=(text,),
                values=values,
                faults=faults,
                answer=chance.choice(("yes", "no", 3, {"at": "ten"}, None)),
                streamed=chance.random() < 0.2,
                answers=chance.random() < 0.6,
            )


def _program(chance: Random, numbers: Iterator[int], *, size: float = 1.0) -> str:
    program: dict[str, Any] = {"n": next(numbers), "route": chance.choice((*AGENTS, *KIT, "nobody"))}
    if chance.random() < 0.15:
        return json.dumps(program)
    program["parts"] = {name: _visits(chance, name) for name in KIT if chance.random() < 0.8 * size}
    if chance.random() < 0.03:
        # Nobody wants it.
        program["parts"] |= {
            name: [[[["hand_over", {"agent": other}]]]] * chance.choice((2, 9))
            for name, other in (("hair", "nails"), ("nails", "hair"))
        }
    if chance.random() < 0.5 * size:
        program["diary"] = {
            key: value
            for key, value in {
                "asks": chance.choice((1, 1, 2, 3)),
                "confirm": chance.random() < 0.5,
                "mood": chance.choice(("fine", "low")),
                "book": chance.choice(THINGS),
            }.items()
            if chance.random() < 0.6
        }
    if chance.random() < 0.4 * size:
        program["memo"] = {"asks": f"q{next(numbers)}"}
    if chance.random() < 0.04:
        program["stubborn"] = True
    if chance.random() < 0.03:
        program["silent"] = chance.choice(KIT)
    return json.dumps(program)


def _visits(chance: Random, name: str) -> list[list[list[Any]]]:
    return [_rounds(chance, name) for _ in range(chance.choice((1, 1, 1, 2)))]


def _rounds(chance: Random, name: str) -> list[list[Any]]:
    rounds = [_calls(chance) for _ in range(chance.choice((0, 1, 1, 2, 2, 4)))]
    if chance.random() < 0.35:
        target = chance.choice((*(other for other in AGENTS if other != name), "nobody"))
        rounds.append([*(_calls(chance) if chance.random() < 0.2 else []), ["hand_over", {"agent": target}]])
        if chance.random() < 0.2:
            rounds[-1].extend(_calls(chance))
    if chance.random() < 0.12:
        rounds.insert(chance.randint(0, len(rounds)), [["end_session", {}]])
    return rounds


def _calls(chance: Random) -> list[Any]:
    return [_call(chance) for _ in range(chance.choice((1, 1, 1, 2)))]


def _call(chance: Random) -> list[Any]:
    name = chance.choices(
        ("look", "book", "ring", "chime", "wonder", "unknown"),
        (20, 25, 20, 15, 5, 2),
    )[0]
    if chance.random() < 0.04:
        return [name, {"wrong": 1}]
    # Mostly something that nothing is the matter with.
    return [name, chance.choice(THINGS) if chance.random() < 0.3 else chance.choice(THINGS[:3])]
