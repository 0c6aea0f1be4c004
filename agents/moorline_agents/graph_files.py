"""Files for a graph: LangChain's content blocks while it runs, words in what is stored of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from langchain_core.messages import BaseMessage, HumanMessage

from moorline_agents.files import GONE, TEXT, SaidText, files_of, in_words, is_image, words

if TYPE_CHECKING:
    from moorline_agents.files import ReadFiles
    from moorline_agents.messages import FileNote

_SAID = "moorline_said"
"""Where a message that came with files has what was said, among its additional arguments."""


async def asked(texts: Sequence[str], reader: ReadFiles) -> list[HumanMessage]:
    """The person's messages, those that came with files as a list of content blocks."""
    hashes = sorted({note["hash"] for text in texts for note in files_of(text)})
    data = await reader(hashes) if hashes else {}
    return [_human(text, data) for text in texts]


def text_of(message: BaseMessage) -> str:
    """What the person said in the message, with its files."""
    said = message.additional_kwargs.get(_SAID)
    return str(message.text) if said is None else SaidText(said["text"], said["files"])


class _Shown(HumanMessage):
    """A message with its files, of which only words are stored: their bytes are kept elsewhere, once."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        said = self.additional_kwargs[_SAID]
        told = words(said["text"], said["files"])
        return HumanMessage(told, id=self.id, additional_kwargs=self.additional_kwargs).model_dump(**options)


# Stored as what it then is.
_Shown.__module__, _Shown.__qualname__, _Shown.__name__ = HumanMessage.__module__, "HumanMessage", "HumanMessage"


def _human(text: str, data: Mapping[str, bytes]) -> HumanMessage:
    notes = files_of(text)
    if not notes:
        return HumanMessage(text, id=str(uuid4()))
    blocks = [*([{"type": "text", "text": str(text)}] if text else []), *(_block(note, data) for note in notes)]
    said = {"text": str(text), "files": list(notes)}
    return _Shown(content=cast("Any", blocks), id=str(uuid4()), additional_kwargs={_SAID: said})


def _block(note: FileNote, data: Mapping[str, bytes]) -> dict[str, Any]:
    if note["hash"] not in data:
        return {"type": "text", "text": in_words(note, GONE)}
    content = data[note["hash"]]
    if note["type"] == TEXT:
        return {"type": "text", "text": f"{in_words(note)}\n{content.decode(errors='replace')}"}
    block = {"type": "file", "base64": b64encode(content).decode(), "mime_type": note["type"]}
    if is_image(note):
        return {**block, "type": "image"}
    return {**block, "extras": {"filename": note["name"] or "file"}}
