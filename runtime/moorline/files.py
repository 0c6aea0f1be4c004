"""Files that a message brings, as a caller passes them in, and the checks that need nothing but their bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from moorline.errors import InvalidMessage
from moorline.file_types import checked_type
from moorline_agents.files import SaidText
from moorline_agents.messages import FileNote
from moorline_agents.plain_json import whole_text
from moorline_checkpoint.files import FileContent, FileRef
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from moorline.settings import Settings
    from moorline_checkpoint.messages import TurnMessage

MAX_NAME = 200
"""Characters of a file's name that are kept."""

MAX_URL = 4_096
"""Characters of an address."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that a message brings: either its bytes, or the `https` address that the server fetches it from.

    What it is is read from its bytes. `type` is what they have to be, as a media type, and the message is refused if
    they are something else; None leaves that open. `name` is what the person calls it.
    """

    data: bytes | None = field(default=None, repr=False)
    _: KW_ONLY
    url: str | None = None
    name: str = ""
    type: str | None = None


@dataclass(frozen=True, slots=True)
class Image(File):
    """A file that has to be a picture."""

    _: KW_ONLY
    type: str | None = "image/*"


Said = str | Sequence[str | File]
"""What a person says: a text, or texts and files in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """The files of a call with their bytes, and the conversation in which they are kept, if they are."""

    contents: tuple[FileContent, ...] = ()
    kept_in: str | None = None


NOTHING = Brought()
"""What most calls bring."""


def parts_of(message: object, settings: Settings) -> tuple[str, tuple[File, ...]]:
    """The text of a message, and its files, checked except for what their bytes are. Raises `InvalidMessage`."""
    if isinstance(message, str):
        return message, ()
    if not isinstance(message, list | tuple):
        raise InvalidMessage(
            f"A message must be text, a list of texts and files, or a Resume, not {type(message).__name__}."
        )
    for part in message:
        if not isinstance(part, str | File):
            raise InvalidMessage(f"A part of a message must be text or a File, not {type(part).__name__}.")
    texts = [part for part in message if isinstance(part, str)]
    files = tuple(part for part in message if isinstance(part, File))
    if len(files) > settings.files_max:
        raise InvalidMessage(
            f"The message has {len(files)} files, but only {settings.files_max} are allowed (MOORLINE_FILES_MAX); send "
            "them in several messages."
        )
    _check_total((file.data for file in files if isinstance(file.data, bytes)), settings)
    for file in files:
        _check(file)
    return "\n".join(text for text in texts if text.strip()), files


def _check_total(contents: Iterable[bytes], settings: Settings) -> None:
    """Raises `InvalidMessage` if one is too large, or all are together."""
    sizes = [len(data) for data in contents]
    if sizes and max(sizes) > settings.file_max:
        raise InvalidMessage(
            f"A file has {max(sizes):,} bytes, but only {settings.file_max:,} are allowed (MOORLINE_FILE_MAX)."
        )
    if sum(sizes) > settings.files_total_max:
        raise InvalidMessage(
            f"The files of the message have {sum(sizes):,} bytes, but only {settings.files_total_max:,} are allowed "
            "(MOORLINE_FILES_TOTAL_MAX)."
        )


def content_of(file: File, data: bytes, settings: Settings, *, called: str = "A file") -> FileContent:
    """The file with its bytes, whose type is checked. Raises `InvalidMessage`."""
    kind = checked_type(data, claimed=file.type, allowed=settings.file_types, called=called)
    ref = FileRef(hash=sha256(data).hexdigest(), type=kind, name=_name(file), size=len(data))
    return FileContent(ref, data)


def said_text(message: TurnMessage) -> str:
    """The message's text as agents get it, with what refers to its files."""
    return SaidText(message.text, _notes(message)) if message.files else message.text


def notes_of(messages: Sequence[TurnMessage]) -> Sequence[FileNote]:
    """What refers to the files of all these messages."""
    return [note for message in messages if message.files for note in _notes(message)]


def _notes(message: TurnMessage) -> list[FileNote]:
    return [FileNote(hash=each.hash, type=each.type, name=each.name, size=each.size) for each in message.files]


def _check(file: File) -> None:
    if not isinstance(file.name, str) or not (file.type is None or isinstance(file.type, str)):
        raise InvalidMessage("The name and the type of a File must be text.")
    if (file.data is None) == (file.url is None):
        raise InvalidMessage("A File needs either its bytes or a url.")
    if file.data is not None:
        if not isinstance(file.data, bytes):
            raise InvalidMessage(f"The data of a File must be bytes, not {type(file.data).__name__}.")
    elif not isinstance(file.url, str) or len(file.url) > MAX_URL:
        raise InvalidMessage(f"The url of a File must be text of at most {MAX_URL:,} characters.")


def _name(file: File) -> str:
    """What the sender called it, or what its address ends with: one line, without folders and brackets. Of a long name
    its end, which may say what the file is."""
    given = file.name
    if not given and file.url is not None:
        given = unquote(urlsplit(file.url).path)
    last = re.split(r"[/\\]", whole_text(given))[-1]
    name = re.sub(r"[\[\]<>\"]", "", one_line(last)).strip()[-MAX_NAME:]
    return name if name.strip(".") else ""
