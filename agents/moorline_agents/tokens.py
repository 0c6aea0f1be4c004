"""How many tokens a text may have, estimated without its model's tokenizer.

Four characters of plain English are a token, three of JSON. Outside ASCII a character is the more tokens the more bytes
it has in UTF-8: two thirds of a token for a Greek or Cyrillic letter, a whole one for a Chinese character or a Hindi
letter, one and a half for an emoji. That is rather too many for today's tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moorline_agents import files

CHARACTERS = 4
"""Of plain text, in a token."""

_CHARACTERS_OF_JSON = 3
_PLAIN = 2  # keys of a message: its role and its content
_OF_A_MESSAGE = 4
_OF_A_CALL = 12  # its ID and its name
_OF_A_BRIEFING = 7  # its tags
_MORE_BYTES = 0.4  # tokens for each byte that a character has besides its first


def tokens_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """Of messages as a model is shown them, with their briefings, calls and files."""
    texts = [content for message in messages if len(message) == _PLAIN and (content := message["content"])]
    json: list[str] = []
    fixed = _OF_A_MESSAGE * len(messages)
    for message in messages:
        if len(message) == _PLAIN:  # as most are, of which many are counted in every turn
            continue
        if content := message["content"]:
            (json if message["role"] == "tool" else texts).append(content)
        if "briefing" in message:
            texts.append(message["briefing"])
            fixed += _OF_A_BRIEFING
        if "tool_calls" in message:
            calls = message["tool_calls"]
            fixed += _OF_A_CALL * len(calls)
            json += [call["function"]["arguments"] for call in calls]
        if "files" in message:
            fixed += sum(map(files.tokens_of, message["files"]))
    return fixed + _of_text("".join(texts), CHARACTERS) + _of_text("".join(json), _CHARACTERS_OF_JSON)


def tokens_of_text(text: str) -> int:
    """Of plain text."""
    return _of_text(text, CHARACTERS)


def tokens_of_tools(tools: Sequence[Mapping[str, Any]]) -> int:
    """Of what a request says about tools."""
    return _of_text("".join(map(str, tools)), _CHARACTERS_OF_JSON)


def _of_text(text: str, characters: int) -> int:
    plain = -(-len(text) // characters)
    return plain if text.isascii() else plain + int(_MORE_BYTES * (len(text.encode(errors="replace")) - len(text)))
