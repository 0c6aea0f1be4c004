"""Which call a delta belongs to: two calls are never taken for one, and none is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorline_agents.completion_stream import AnswerStream
from moorline_agents.messages import Message

TOOLS = frozenset({"find", "find_slots", "book"})
A, B = '{"day": 1}', '{"slot": "b"}'
FIND, BOOK = ("find", {"day": 1}), ("book", {"slot": "b"})


def part(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"function": {key: value for key, value in function.items() if value is not None}, **more}


def answer(*deltas: list[dict[str, Any]]) -> Message:
    stream = AnswerStream(TOOLS)
    for entries in deltas:
        stream.add({"choices": [{"index": 0, "delta": {"tool_calls": entries}}]})
    stream.end()
    return stream.finish(ended=True).message


def calls(*deltas: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    made = answer(*deltas)["tool_calls"]
    assert len({call["id"] for call in made}) == len(made)
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in made]


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param(([part("find", A), part("book", B)],), id="nothing but names, in one delta"),
        pytest.param(([part("find", A)], [part("book", B)]), id="nothing but names, in two"),
        pytest.param(([part("find", A, index=0)], [part("book", B, index=0)]), id="all are number 0"),
        pytest.param(([part("find", A, id="", index=0)], [part("book", B, id="", index=0)]), id="an empty ID"),
        pytest.param(([part("find", A, id="c", index=0)], [part("book", B, id="c", index=1)]), id="the same ID"),
        pytest.param(
            ([part("find", '{"day"', id="a", index=0)], [part(None, ": 1}", id="b", index=0)], [part("book", B)]),
            id="an ID that changes within the call",
        ),
        pytest.param(
            ([part("find", '{"day"', id="a")], [part("find", ": 1}", id="a")], [part("book", B, id="b")]),
            id="the name again in each delta",
        ),
        pytest.param(
            ([part("fi", "", id="a")], [part("nd")], [part(None, A)], [part("bo", "", id="b")], [part("ok", B)]),
            id="names in pieces",
        ),
        pytest.param(
            ([part(None, A, id="a", index=0)], [part("find", index=0)], [part("book", B, id="b", index=1)]),
            id="a name that comes last",
        ),
        pytest.param(([part("find", {"day": 1}), part("book", {"slot": "b"})],), id="arguments as objects"),
        pytest.param(([part("find", json.dumps(A)), part("book", B)],), id="arguments as JSON in JSON"),
        pytest.param(
            ([part("find", A, index=0), part("book", B, index=1)], [{"index": 0, "function": None}]),
            id="a function that is null",
        ),
        pytest.param(
            (
                [part("find", id="a", index=0), part("book", id="b", index=1)],
                [part(None, B, index=1)],
                [part(None, A, index=0)],
            ),
            id="the arguments of the second call first",
        ),
        pytest.param(
            (
                [part("find"), part("book")],
                [part(None, '{"day"'), part(None, '{"slot"')],
                [part(None, ": 1}"), part(None, ': "b"}')],
            ),
            id="side by side, told apart only by their place",
        ),
        pytest.param(
            ([part("find", "", id="a", index=0)], [part("find", A, id="a", index=0)], [part("book", B, index=1)]),
            id="said once without arguments and once with them",
        ),
        pytest.param(([part("find", "{}" + A), part("book", B)],), id="an empty object before the real one"),
        pytest.param(([part("find", A), part("book", B)], [part()], [part("", "")]), id="entries that say nothing"),
    ],
)
def test_two_calls_stay_two(deltas: tuple[list[dict[str, Any]], ...]) -> None:
    assert calls(*deltas) == [FIND, BOOK]


def test_two_objects_in_one_entry_are_two_calls() -> None:
    assert calls([part("find", A + ' {"day": 2}')]) == [FIND, ("find", {"day": 2})]


def test_the_same_call_twice_is_two_calls() -> None:
    assert calls([part("find", A), part("find", A)]) == [FIND, FIND]
    assert calls([part("find", A, id="a")], [part("find", A, id="b")]) == [FIND, FIND]


def test_entries_of_one_delta_are_different_calls() -> None:
    assert calls([part("find"), part("find")]) == [("find", {}), ("find", {})]
    arguments = [part(None, A), part(None, '{"day": 2}')]
    assert calls([part("find"), part("find")], arguments) == [FIND, ("find", {"day": 2})]


def test_a_number_of_its_own_is_a_call_of_its_own() -> None:
    first = ([part(None, '{"day"', id="c", index=0)], [part("find", index=0)], [part(None, ": 1}", index=0)])
    second = ([part(None, B[:5], id="c", index=1)], [part("book", index=1)], [part(None, B[5:], index=1)])
    assert calls(*first, *second) == [FIND, BOOK]


def test_a_name_that_begins_like_another_tools_is_told_from_it() -> None:
    assert calls([part("find", "", id="a")], [part("_slots")], [part(None, A)]) == [("find_slots", {"day": 1})]
    assert calls([part("find", A)], [part("find_slots", A)]) == [FIND, ("find_slots", {"day": 1})]


def test_a_call_without_arguments_has_none() -> None:
    assert calls([part("find", "")]) == [("find", {})]
    assert calls([part("find")], [part("book", "null")]) == [("find", {}), ("book", {})]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ('{"day": 1', "no JSON that can be used"),
        ("[1]", "not a JSON object"),
        ('{"day": NaN}', "no JSON that can be used"),
        ('{"day": 1e999}', "no JSON that can be used"),
        ('{"day": "\\ud800"}', "no JSON that can be used"),
        ('{"day": "\\u0000"}', "U+0000"),
        ('{"day": ' + "1" * 5_000 + "}", "no JSON that can be used"),
        ("[" * 60_000, "no JSON that can be used"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper than 64"),
        ('{"text": "' + "x" * 65_536 + '"}', "longer than 65536 bytes"),
        ('{"text": "' + "ä" * 40_000 + '"}', "longer than 65536 bytes"),
    ],
)
def test_arguments_that_cannot_be_used_are_not_kept(arguments: str, why: str) -> None:
    call = answer([part("find", arguments[:7])], [part(None, arguments[7:])])["tool_calls"][0]
    assert call["function"] == {"name": "find", "arguments": "{}"}
    assert why in call["refused"]


def test_arguments_just_within_their_limits_are_kept() -> None:
    deep, long = '{"a":' * 64 + "1" + "}" * 64, json.dumps({"text": "x" * (65_536 - 12)})
    for arguments in (deep, long):
        call = answer([part("find", arguments)])["tool_calls"][0]
        assert call["function"]["arguments"] == arguments
        assert "refused" not in call


def test_far_more_calls_than_may_be_made_are_bounded_while_they_stream() -> None:
    stream = AnswerStream(TOOLS)
    for number in range(1_000):
        entry = part("book", json.dumps({"number": number}))
        stream.add({"choices": [{"index": 0, "delta": {"tool_calls": [entry]}}]})
    assert len(stream._calls.calls) == 17
    stream.end()
    made = stream.finish(ended=True).message["tool_calls"]
    assert ["refused" in call for call in made] == [False] * 16 + [True]
    assert "an answer may make 16 calls" in made[-1]["refused"]


@pytest.mark.parametrize("name", ["a b", "größe", "x" * 65, "a\0b", "../x", "x" * 1_000_000])
def test_a_name_that_no_tool_can_have_is_kept_as_one_that_servers_take(name: str) -> None:
    call = answer([part(name, A)])["tool_calls"][0]
    assert call["refused"] == "there is no tool of that name"
    assert 1 <= len(call["function"]["name"]) <= 64
    assert call["function"]["name"].replace("_", "").isalnum() or set(call["function"]["name"]) == {"_"}
