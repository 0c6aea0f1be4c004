"""Estimates of tokens: rather too many than too few, for whatever is written."""

import pytest

from moorline_agents.files import IMAGE_TOKENS
from moorline_agents.tokens import tokens_of, tokens_of_text


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The quick brown fox jumps over the lazy dog. " * 20, 200, 260),
        ("Heute Nachmittag wäre schön, am besten früh. " * 20, 220, 300),
        ("Запишите меня на понедельник, пожалуйста. " * 20, 200, 600),
        ("请帮我预约下周一上午九点。" * 20, 200, 300),
        ("अगले सोमवार को मिलते हैं। " * 20, 200, 520),
        ("🙂" * 100, 100, 200),
    ],
    ids=["English", "German", "Russian", "Chinese", "Hindi", "emoji"],
)
def test_texts(text: str, least: int, most: int) -> None:
    assert least <= tokens_of_text(text) <= most


def test_json_has_more_tokens_than_prose_and_messages_cost_something_themselves() -> None:
    text = '{"start": "2026-06-01T14:30+02:00", "with": "Ana"}'
    result = {"role": "tool", "tool_call_id": "a", "content": text}
    assert tokens_of([result]) > tokens_of([{"role": "user", "content": text}])
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": text}}
    assert tokens_of([{"role": "assistant", "content": None, "tool_calls": [call]}]) > tokens_of([result])
    assert tokens_of([{"role": "user", "content": ""}]) > 0


def test_briefings_and_files_count() -> None:
    plain = {"role": "user", "content": "x"}
    assert tokens_of([{**plain, "briefing": "y" * 400}]) >= tokens_of([plain]) + 100
    picture = {"hash": "0", "type": "image/png", "name": "", "size": 9_000_000}
    assert tokens_of([{**plain, "files": [picture, picture]}]) >= tokens_of([plain]) + 2 * IMAGE_TOKENS


def test_half_a_character_is_counted_too() -> None:
    assert tokens_of_text("\ud83d") > 0
