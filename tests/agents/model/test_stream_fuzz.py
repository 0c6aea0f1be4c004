"""However a server splits an answer and whatever it leaves out, the same text and the same calls come of it."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.agents.model.streams import Answer, known_answers, reassembled, streamed

ANSWERS = known_answers(200)


def same(answer: Answer, seed: int) -> None:
    chunks = streamed(answer, Random(seed))  # noqa: S311 - a test, no secret
    whole = reassembled(chunks)
    told = f"seed {seed}: {json.dumps(chunks, indent=1)}"
    assert whole.calls == list(answer.calls), told
    assert whole.text.strip() == answer.text.strip(), told
    assert whole.extra.get("reasoning_content", answer.thinking) == answer.thinking, told
    if answer.signed:
        first, *others = whole.signatures
        assert first == {"google": {"thought_signature": "c2ln"}}, told
        assert not any(others), told


@pytest.mark.parametrize("part", range(4))
def test_an_answer_is_the_same_however_it_is_split(part: int) -> None:
    for number in range(part, 400, 4):
        same(ANSWERS[number % len(ANSWERS)], number)


@pytest.mark.laboratory
@pytest.mark.parametrize("part", range(20))
def test_an_answer_is_the_same_in_a_hundred_thousand_ways(part: int) -> None:
    for number in range(part, 100_000, 20):
        same(ANSWERS[number % len(ANSWERS)], number)
