"""Records as logs hold them: odd names, odd texts, long conversations, and lines that are no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moorline import Settings
from moorline.errors import ConfigurationError
from moorline.replay.cli import replay
from moorline.replay.conversations import Conversation, read_conversations
from moorline.replay.names import agent_name, tool_name
from moorline.replay.player import Played, Restart, opener, play

ODD = [
    *(
        "x" * 60,
        "Friseur am Markt",
        "Zahnärztin",
        "Zahnarztin",
        "Zahn rztin",
        "route",
        "日本",
        "日本語",
        " ",
        "",
        "a/b",
        "a:b",
    ),
    *(
        "__end__",
        "__start__",
        "messages",
        "texts",
        "hand_over",
        "end_session",
        "model_config",
        "a.think",
        "\n",
        "\x1b[31m",
    ),
]
PARAMETERS = [
    *(
        "model_config",
        "__base__",
        "__module__",
        "_private",
        "model_fields",
        "schema",
        "json",
        "copy",
        "field_0",
        "self",
    ),
    *("with space", "", "from", "ä", "x" * 300, "a.b", "1st", "$ref", "model_dump"),
]


def call(method: str = "find", results: Any = "ok", **parameters: Any) -> dict[str, Any]:
    return {"service": "any", "method": method, "parameters": parameters, "results": results}


def record(*turns: tuple[str, str, list[dict[str, Any]]], name: str = "x") -> dict[str, Any]:
    """A record of turns: the service, the text of both, the calls."""
    spoken: list[dict[str, Any]] = []
    for service, text, calls in turns:
        spoken += (
            {"role": "user", "text": text},
            {"role": "assistant", "text": f"To {text}", "services": [service], "calls": calls},
        )
    return {"id": name, "turns": spoken}


async def played(settings: Settings, written: dict[str, Any], restart: Restart = Restart.NONE) -> Played:
    conversation = Conversation.model_validate_json(json.dumps(written))
    return await play(conversation, restart=restart, settings=settings, open_moorline=opener(settings))


def test_every_name_has_one_that_can_be_played_and_no_two_share_it() -> None:
    agents, tools = [agent_name(name) for name in ODD], [tool_name(name) for name in ODD]
    assert len(set(agents)) == len(set(tools)) == len(ODD)
    assert agent_name("Salon-1") == tool_name("Salon-1") == "Salon-1"
    assert agent_name("Friseur am Markt").startswith("Friseur_am_Markt_")


async def test_services_and_methods_may_have_any_names(settings: Settings) -> None:
    turns = [(name, f"turn {number}", [call(name, number)]) for number, name in enumerate([*ODD, *ODD[:4]])]
    result = await played(settings, record(*turns))
    assert (result.turns, result.mismatches) == (len(turns), ())


async def test_parameters_may_have_any_names(settings: Settings) -> None:
    calls = [call("find", name, **{name: 1}) for name in PARAMETERS]
    calls.append(call("find", "all", **dict.fromkeys(PARAMETERS, None)))
    assert (await played(settings, record(("S", "hello", calls)))).mismatches == ()


async def test_a_new_process_plays_them_too(settings: Settings) -> None:
    written = record(("Friseur am Markt", "hello", [call("route", 1, model_config=2)]), ("Zahnärztin", "and", []))
    assert (await played(settings, written, Restart.PROCESS)).mismatches == ()


async def test_the_same_call_may_have_another_result_each_time(settings: Settings) -> None:
    calls = [call("find", "taken", day=1), call("other", 0), call("find", "free", day=1), call("find", "gone", day=1)]
    written = record(("S", "one", calls), ("S", "two", calls[:2]), ("S", "three", []))
    assert (await played(settings, written)).mismatches == ()


async def test_more_calls_than_one_answer_may_make(settings: Settings) -> None:
    calls = [call("find", number, number=number) for number in range(40)]
    assert (await played(settings, record(("S", "one", calls), ("S", "two", [])))).mismatches == ()


async def test_a_message_that_would_start_over_is_played_like_any_other(settings: Settings) -> None:
    written = record(("S", "one", []), ("S", "start over", []), ("S", "three", []))
    assert (await played(settings, written)).mismatches == ()


async def test_of_a_long_conversation_the_agents_are_due_what_they_are_shown(settings: Settings) -> None:
    turns = [("T" if number % 20 == 7 else "S", f"{number}", [call("find", number)] * 2) for number in range(70)]
    assert (await played(settings, record(*turns))).mismatches == ()


ODD_TEXT = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven\r"


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    lines = [json.dumps(record(("S", ODD_TEXT, []), name=f"c{number}"), ensure_ascii=False) for number in range(3)]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([lines[0], "", *lines[1:]]).encode())
    read = list(read_conversations(file))
    assert [conversation.id for conversation in read] == ["c0", "c1", "c2"]
    assert {conversation.turns[0].text for conversation in read} == {ODD_TEXT}


async def test_a_text_of_odd_characters_is_played(settings: Settings) -> None:
    assert (await played(settings, record(("S", ODD_TEXT, []), ("S", "\u202e🙂\x00", [])))).mismatches == ()


NEST: Any = "x"
for _ in range(70):
    NEST = [NEST]

BAD = [
    b"no JSON",
    b"[]",
    b"\xff\xfe{}",
    b'{"id": "x", "turns": []}',
    json.dumps(record(("S", " \n", []))).encode(),
    json.dumps(record(("S", "NaN", [call("find", float("nan"))]))).encode(),
    json.dumps(record(("S", "deep", [call("find", NEST)]))).encode(),
    json.dumps(record(("S", "long", [call("find", 1, text="x" * 70_000)]))).encode(),
    json.dumps(record(("S", "infinite", [call("find", 1, number=float("inf"))]))).encode(),
    b'{"id": "x", "turns": ' + b"[" * 100_000,
    b'{"id": "\\ud83d", "turns": []}',
]


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_cannot_be_played_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "records.jsonl"
    good = json.dumps(record(("S", "hello", []))).encode()
    file.write_bytes(b"\n".join([good, line, good]))
    with pytest.raises(ConfigurationError, match="line 2"):
        list(read_conversations(file))
    skipped: list[str] = []
    assert len(list(read_conversations(file, skipped=skipped))) == 2
    assert len(skipped) == 1
    assert "line 2" in skipped[0]


async def test_a_replay_goes_on_after_bad_records_if_it_shall(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "records.jsonl"
    good = [json.dumps(record(("Friseur am Markt", "hello", []), name=f"c{number}")).encode() for number in range(2)]
    file.write_bytes(b"\n".join([good[0], *BAD, good[1]]))
    with pytest.raises(ConfigurationError, match="line 2"):
        await replay(file, restart=Restart.NONE, limit=None, skip_bad=False, settings=settings)
    assert capsys.readouterr().out == ""
    assert await replay(file, restart=Restart.NONE, limit=None, skip_bad=True, settings=settings)
    told = capsys.readouterr()
    assert told.out.startswith("2 of 2 conversations as recorded, 0 mismatches.")
    assert told.out.endswith(f"{len(BAD)} records were skipped.\n")
    for number in range(2, 2 + len(BAD)):
        assert f"line {number}:" in told.err
