"""Files in a conversation: what a history has of them, what tools get, and how they are told in words.

Their bytes are kept by whoever runs the agents, in one place; a history only refers to them by their hash.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from moorline_agents.tools import ToolRefused

if TYPE_CHECKING:
    from moorline_agents.messages import FileNote, Message

ReadFiles = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]
"""Gives the bytes of the conversation's files with these hashes, as far as they are kept."""

IMAGE_TOKENS = 1_000
"""What an image counts in a window; servers count some hundred to two thousand, whatever its bytes."""

BYTES_OF_A_TOKEN = 200
"""Bytes of a document that count as a token: large ones are mostly pictures."""

CHARS_OF_A_TOKEN = 3
"""Bytes of a text that count as a token."""

TEXT = "text/plain"

GONE = "no longer kept"
"""What is said of a file whose bytes are gone."""


NO_ROOM = "too large for you to see it; say so"
"""What a model is told of a file for which it has no room."""


class SaidText(str):
    """The text of a person's message that came with files."""

    __slots__ = ("files",)
    files: tuple[FileNote, ...]

    def __new__(cls, text: str, files: Sequence[FileNote]) -> Self:
        said = super().__new__(cls, text)
        said.files = tuple(files)
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedFile:
    """A file that came with the message that is being answered."""

    hash: str
    """The SHA-256 of its bytes, in hexadecimal: the same file has the same one."""
    type: str
    """What its bytes are, as a media type; never what the sender said they were."""
    name: str
    """What its sender called it, in one line; may be empty. It is no path, and not to be used as one."""
    size: int
    """Its bytes."""
    reader: ReadFiles = field(repr=False, compare=False)

    async def read(self) -> bytes:
        """Its bytes. Raises `ToolRefused` if they are no longer kept."""
        found = await self.reader([self.hash])
        if self.hash not in found:
            raise ToolRefused(f"The file {self.name or self.hash[:12]} is no longer kept.", code="file_gone")
        return found[self.hash]


async def no_files(hashes: Sequence[str]) -> Mapping[str, bytes]:  # noqa: ARG001 - as ReadFiles
    """For runs without a place where files are kept."""
    return {}


def files_of(text: str) -> tuple[FileNote, ...]:
    """The files that came with a text."""
    return text.files if isinstance(text, SaidText) else ()


def received(notes: Sequence[FileNote], reader: ReadFiles) -> tuple[ReceivedFile, ...]:
    """The files as tools get them."""
    return tuple(ReceivedFile(**note, reader=reader) for note in notes)


def said(text: str) -> Message:
    """A person's message, as a history keeps it."""
    if files := files_of(text):
        return {"role": "user", "content": str(text), "files": list(files)}
    return {"role": "user", "content": text}


def text_of(message: Message) -> str:
    """The text of which `said` made the message."""
    text = message["content"] or ""
    return SaidText(text, message["files"]) if message.get("files") else text


def in_words(note: FileNote, but: str = "") -> str:
    """A file as text: `[image photo.jpg]`; `but` says what is wrong with it."""
    kind = "image" if is_image(note) else "file"
    named = f"{kind} {note['name']}" if note["name"] else kind
    return f"[{named}: {but}]" if but else f"[{named}]"


def words(text: str, notes: Sequence[FileNote]) -> str:
    """A text with its files in words behind it."""
    return "\n".join(filter(None, (text, *map(in_words, notes))))


def with_files(messages: Sequence[Message]) -> bool:
    """Whether any of the messages has files."""
    return any("files" in message for message in messages)


def without_files(message: Message) -> Message:
    """The message with its files in words that say that they had no room."""
    if "files" not in message:
        return message
    told = (message["content"], *(in_words(note, NO_ROOM) for note in message["files"]))
    return {"role": message["role"], "content": "\n".join(filter(None, told))}


def fitting(messages: Sequence[Message], room: int) -> list[Message]:
    """The messages with those of their files that together have at most `room` tokens; the others are in words that say
    so."""
    whole: list[Message] = []
    for message in messages:
        if "files" not in message:
            whole.append(message)
            continue
        kept: list[FileNote] = []
        told = [message["content"]]
        for note in message["files"]:
            if tokens_of(note) > room:
                told.append(in_words(note, NO_ROOM))
                continue
            room -= tokens_of(note)
            kept.append(note)
        whole.append({**message, "content": "\n".join(filter(None, told)), "files": kept})
    return whole


def is_image(note: FileNote) -> bool:
    """Whether it is a picture."""
    return note["type"].startswith("image/")


def tokens_of(note: FileNote) -> int:
    """About how many tokens a model takes for the file, rather too many."""
    if is_image(note):
        return IMAGE_TOKENS
    return note["size"] // (CHARS_OF_A_TOKEN if note["type"] == TEXT else BYTES_OF_A_TOKEN)
