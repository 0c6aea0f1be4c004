"""Files: what came with messages, kept once in each conversation, by the hash of their bytes.

A message only refers to its files, in its text; see `packing.pack_said`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moorline_checkpoint.packing import pack_said, pack_text, unpack_said, unpack_text

if TYPE_CHECKING:
    from moorline_checkpoint.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A file that came with a message, without its bytes."""

    hash: str
    """The SHA-256 of its bytes, in hexadecimal."""
    type: str
    """What its bytes are, as a media type."""
    name: str
    """What its sender called it; may be empty."""
    size: int
    """Its bytes."""

    def __str__(self) -> str:
        """The file in words, as it stands where only text can."""
        kind = "image" if self.type.startswith("image/") else "file"
        return f"[{kind} {self.name}]" if self.name else f"[{kind}]"


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file with its bytes."""

    ref: FileRef
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """The bytes of a file, as a conversation keeps them."""

    type: str
    data: bytes


SWEPT = 100
"""Files that one statement of a sweep removes at most."""


def pack_message(text: str, files: Sequence[FileRef]) -> str:
    """A message as it is stored: its text, and what refers to its files."""
    return pack_said(text, [asdict(file) for file in files]) if files else pack_text(text)


def unpack_message(stored: str) -> tuple[str, tuple[FileRef, ...]]:
    """The text and the files of which `pack_message` made what is stored."""
    text, files = unpack_said(stored)
    return text, tuple(FileRef(**file) for file in files) if files else ()


class Files:
    """The files of one database's conversations.

    Every method raises `StoreUnavailable` or `SchemaMismatch` when the database does.
    """

    def __init__(self, database: Database, *, most: int) -> None:
        """A conversation keeps at most about `most` bytes of files; the ones that came longest ago go first."""
        self._database = database
        self._most = most

    async def place(self, device_id: str, *, person_id: str | None = None) -> str:
        """The conversation to which the device leads, or will lead once it is known as the person's."""
        person = None if person_id is None else pack_text(person_id)
        return unpack_text(await self._database.fetchval("place_of_files", device_id, person))

    async def keep(self, conversation: str, files: Sequence[FileContent]) -> None:
        """Stores the files in the conversation. One that is there already counts as the latest."""
        for file in files:
            ref = file.ref
            await self._database.execute("keep_file", conversation, ref.hash, ref.type, file.data, self._most)

    async def read(self, conversation: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """The bytes of the conversation's files with these hashes, as far as it has them."""
        rows = await self._database.fetch("read_files", conversation, list(hashes))
        return {row["hash"]: row["data"] for row in rows}

    async def find(self, device_id: str, hashed: str) -> StoredFile | None:
        """The file with this hash in the conversation that the device leads to; None if there is none."""
        row = await self._database.fetchrow("find_file", device_id, hashed)
        return None if row is None else StoredFile(type=row["type"], data=row["data"])

    async def forget_lost(self) -> None:
        """Removes the files that were kept over an hour ago for devices of which nothing else is stored: their message
        never came, or the device was erased while they were kept."""
        removed = SWEPT
        while removed == SWEPT:
            removed = await self._database.fetchval("expire_files", SWEPT)

    async def of_message(self, device_id: str, message_id: str) -> tuple[FileRef, ...] | None:
        """The files of a message that the device has sent before; None if it is not known."""
        stored: Any = await self._database.fetchval("message_text", device_id, pack_text(message_id))
        return None if stored is None else unpack_message(stored)[1]
