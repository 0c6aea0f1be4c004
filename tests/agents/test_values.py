"""What tools and questions give is JSON before anything depends on it."""

import datetime
import json
import math
from collections import namedtuple
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from moorline_agents.values import MAX_CHARACTERS, exact, settled


class Day(BaseModel):
    day: datetime.date
    price: float = 1.5


class Kind(StrEnum):
    CUT = "cut"


class Number(Enum):
    ONE = 1


class Broken:
    def __str__(self) -> str:
        raise LookupError


Point = namedtuple("Point", "x y")
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
ITSELF: list[Any] = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        (None, None),
        ("", ""),
        ([], []),
        ({"a": [1, True, 2.5, "b"]}, {"a": [1, True, 2.5, "b"]}),
        ({"when": NOON, "day": NOON.date()}, {"when": "2026-01-02T12:00:00Z", "day": "2026-01-02"}),
        (Day(day=NOON.date()), {"day": "2026-01-02", "price": 1.5}),
        ([Day(day=NOON.date())], [{"day": "2026-01-02", "price": 1.5}]),
        ((Kind.CUT, Number.ONE, Point(1, 2)), ["cut", 1, [1, 2]]),
        ({1: "a", None: "b", Kind.CUT: "c"}, {"1": "a", "null": "b", "cut": "c"}),
        ({"id": UUID(int=1), "price": Decimal("1.10")}, {"id": str(UUID(int=1)), "price": "1.10"}),
        ({1}, [1]),
        ("half \ud83d", "half \ufffd"),
        ({"half \ud83d": "\udc00"}, {"half \ufffd": "\ufffd"}),
        ("nul \0", "nul \0"),
    ],
)
def test_a_value_is_settled_as_json(value: Any, json_value: Any) -> None:
    assert settled(value) == json_value
    assert exact(value) == json_value


@pytest.mark.parametrize(
    ("value", "json_value"),
    [
        ([math.nan, math.inf], [None, None]),
        (Day(day=NOON.date(), price=math.nan), {"day": "2026-01-02", "price": None}),
        pytest.param(10**5000, "(a number of too many digits)", id="long number"),
        (b"\xff\x00", "_wA="),
        (Broken(), "(Broken)"),
    ],
)
def test_what_json_cannot_hold_is_settled_all_the_same(value: Any, json_value: Any) -> None:
    assert settled(value) == json_value


@pytest.mark.parametrize(
    "value",
    [math.nan, {"a": [-math.inf]}, Day(day=NOON.date(), price=math.nan), 10**5000, Broken(), ITSELF, "x" * 70_000],
    ids=["nan", "inf", "nan in a model", "long number", "broken", "circular", "long text"],
)
def test_what_must_be_exact_is_refused_rather_than_changed(value: Any) -> None:
    with pytest.raises(ValueError, match="it "):
        exact(value)


@pytest.mark.parametrize(
    "value",
    [
        list(range(1_000_000)),
        "x" * 5_000_000,
        {str(n): "x" * 1000 for n in range(5000)},
        {"a": ["half \ud83d" * 20000]},
    ],
    ids=["list", "text", "mapping", "text in a list"],
)
def test_of_a_long_value_the_beginning_is_kept(value: Any) -> None:
    kept = settled(value)
    assert set(kept) == {"cut", "beginning"}
    assert MAX_CHARACTERS // 2 < len(kept["beginning"]) <= MAX_CHARACTERS
    json.dumps(kept, allow_nan=False).encode()


def test_depth_ends_somewhere() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert "(nested too deeply)" in json.dumps(settled(deep))
    assert "(nested too deeply)" in json.dumps(settled(ITSELF))
    twice: Any = "leaf"
    for _ in range(60):
        twice = [twice, twice]
    assert "cut" in settled(twice)
