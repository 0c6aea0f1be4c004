"""Showing files to a model: the last ones as they are, older ones in words, and all in words to one that takes none."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from moorline_agents.briefing import harmless
from moorline_agents.files import GONE, TEXT, in_words, is_image
from moorline_agents.model_errors import ContextOverflow, ModelError

if TYPE_CHECKING:
    from moorline_agents.files import ReadFiles
    from moorline_agents.messages import FileNote, Message, ModelAnswer
    from moorline_agents.model import Model

MESSAGES_WITH_FILES = 4
"""Of how many of the person's last messages a model is shown the files themselves. Of those before, it has said what it
saw in them."""

UNSEEN = "you cannot see it; say so"

_UNSUPPORTED = re.compile(
    r"(not|n't|unknown|invalid|only|must be|should be|expected|missing|unsupported|no)\b.{0,80}"
    r"\b(image_url|image input|images?|vision|multi-?modal|modality|modalities|content type|content part|string|file|"
    r"pdf|document)s?\b"
    r"|\b(image_url|image input|images?|vision|multi-?modal|content|input_image|file|pdf|document)s?\b.{0,80}"
    r"\b(not (supported|enabled|allowed|available|a)|unsupported|must be a string|only)\b",
    re.IGNORECASE | re.DOTALL,
)
"""How servers say that a model takes no pictures or documents at all."""

_SPOILT = re.compile(
    r"corrupt|damaged|\bvalid\b|represent|truncated|decod|could not process|unable to process|cannot identify|"
    r"too (large|small|big|many)|dimension|resolution|exceed|invalid (image|base64|pdf)|format",
    re.IGNORECASE,
)
"""How servers say that one file is not to their liking."""

_TAKEN = frozenset({TEXT, "image", "file"})
"""The kinds of files that a model may take. A text is shown as text, which any takes."""

_REFUSED: WeakKeyDictionary[Model, frozenset[str]] = WeakKeyDictionary()
"""The kinds that models have refused."""


async def with_shown(model: Model, messages: Sequence[Message], reader: ReadFiles, **options: Any) -> ModelAnswer:
    """`Model.complete` for messages of which some have files. A model that refuses them
    is told in words that there were some; what it refuses always is remembered for as long as it lives."""
    taken = _TAKEN - _refused_by(model)
    fresh = _fresh(messages)
    hashes = {note["hash"] for place in fresh for note in messages[place]["files"] if _kind(note) in taken}
    data = await reader(sorted(hashes)) if hashes else {}

    def shown(taken: frozenset[str]) -> list[Message]:
        return [
            _shown(message, data, taken, fresh=place in fresh) if "files" in message else message
            for place, message in enumerate(messages)
        ]

    asked = shown(taken)
    kinds = frozenset(_kinds(asked))
    try:
        return await model.complete(asked, **options)
    except ModelError as error:
        if not kinds or not _may_be_for_files(error):
            raise
        refused = error
    answer = await model.complete(shown(_TAKEN - kinds), **options)
    _learn(model, refused.refusal, kinds)
    return replace(answer, usage=answer.usage + refused.usage)


def _fresh(messages: Sequence[Message]) -> frozenset[int]:
    """The places of those messages whose files are shown themselves."""
    of_person = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return frozenset(place for place in of_person[-MESSAGES_WITH_FILES:] if "files" in messages[place])


def _shown(message: Message, data: Mapping[str, bytes], taken: frozenset[str], *, fresh: bool) -> Message:
    notes = message["files"]
    plain = {name: value for name, value in message.items() if name != "files"}
    parts = [_part(note, data, taken) if fresh else in_words(note) for note in notes]
    text = "\n".join(filter(None, (message["content"], *(part for part in parts if isinstance(part, str)))))
    others = [part for part in parts if not isinstance(part, str)]
    if not others:
        return cast("Message", {**plain, "content": text})
    told = [{"type": "text", "text": text}] if text else []
    return cast("Message", {**plain, "content": [*told, *others]})


def _part(note: FileNote, data: Mapping[str, bytes], taken: frozenset[str]) -> str | Mapping[str, Any]:
    if _kind(note) not in taken:
        return in_words(note, UNSEEN)
    if note["hash"] not in data:
        return in_words(note, GONE)
    content = data[note["hash"]]
    if note["type"] == TEXT:
        return f"{in_words(note)}\n{harmless(content.decode(errors='replace'))}"
    url = f"data:{note['type']};base64,{b64encode(content).decode()}"
    if is_image(note):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": note["name"] or "file", "file_data": url}}


def _kind(note: FileNote) -> str:
    """What a model has to take."""
    if note["type"] == TEXT:
        return TEXT
    return "image" if is_image(note) else "file"


def _kinds(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        content: object = message["content"]
        if isinstance(content, list):
            yield from (part["type"].removesuffix("_url") for part in content if part["type"] != "text")


def _may_be_for_files(error: ModelError) -> bool:
    """Whether the request may be taken without files. A server that fails may do so for another reason."""
    if isinstance(error, ContextOverflow) or not error.refusal:
        return False
    return not error.retryable or bool(_UNSUPPORTED.search(error.refusal))


def _learn(model: Model, refusal: str, kinds: frozenset[str]) -> None:
    if _SPOILT.search(refusal) or not _UNSUPPORTED.search(refusal):
        return
    named = frozenset(kind for kind in kinds if kind in refusal.lower()) or kinds
    try:
        _REFUSED[model] = _refused_by(model) | named
    except TypeError:  # one that cannot be remembered is asked again
        return


def _refused_by(model: Model) -> frozenset[str]:
    try:
        return _REFUSED.get(model, frozenset())
    except TypeError:
        return frozenset()
