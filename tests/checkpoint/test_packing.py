"""What PostgreSQL cannot store as text is packed, and comes back unchanged."""

import json
import math
import random

import pytest

from moorline_checkpoint.packing import load_json, pack_json, pack_text, parse_json, unpack_json, unpack_text

AWKWARD = ["\x00", "\x1a", "\ud800", "\udfff", "\x1a0000", "\\u0000", "😀", "é", "a", '"']


def random_text(chance: random.Random) -> str:
    return "".join(chance.choices(AWKWARD, k=chance.randrange(8)))


def test_ordinary_text_stays_as_it_is() -> None:
    assert pack_text("Guten Tag, 你好 😀\n") == "Guten Tag, 你好 😀\n"


@pytest.mark.parametrize("seed", range(10))
def test_any_text_comes_back_and_no_two_become_one(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    texts = {random_text(chance) for _ in range(200)}
    packed = {pack_text(text) for text in texts}

    assert len(packed) == len(texts)
    assert {unpack_text(text) for text in packed} == texts
    assert not any(set(text).intersection("\x00\ud800\udfff") for text in packed)


@pytest.mark.parametrize("seed", range(10))
def test_any_json_comes_back(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    # JSON takes two adjacent surrogates for one character, so none are adjacent here.
    text = [random_text(chance).replace("\ud800\udfff", "") for _ in range(3)]
    value = {text[0]: [text[1], {text[2]: None, "n": 1.5, "t": True}], "plain": 3}

    assert load_json(pack_json(value)) == value
    assert unpack_json(json.loads(pack_json(value))) == value
    assert "\\u0000" not in pack_json({"a": "\x00"})


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud83d"}',
        '"\\ud83d\\ude00"',
        "[" * 400 + "]" * 400,
        "-0.0",
        "1e400",
        "1" * 60,
        "0.1",
        "2.2250738585072014e-308",
        "9007199254740993.0",
        '{"a": 1, "a": 2}',
        "null",
        '"  \\u001a0000"',
    ],
)
def test_json_is_read_as_python_reads_it(text: str) -> None:
    assert repr(parse_json(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{'a': 1}"])
def test_what_is_no_json_is_refused_as_python_refuses_it(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, object()])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        pack_json({"key": value})
