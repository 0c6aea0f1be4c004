"""The bodies of requests and answers, as OpenAPI describes them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from moorline.context import MAX_MESSAGE, MAX_MESSAGE_ID
from moorline.files import MAX_URL

MESSAGE_ID = r"^[^\x1f]*[^\s\x1f][^\x1f]*$"
"""Something that is no space, and no separator of addresses and IDs."""

MessageID = Annotated[
    str,
    Field(
        max_length=MAX_MESSAGE_ID,
        pattern=MESSAGE_ID,
        description="The message's ID, unique for its device: sent again with it, the message is answered only once.",
    ),
]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextMessage(_Model):
    """A message in words."""

    text: str = Field(max_length=MAX_MESSAGE, pattern=r"\S", description="What the person says.")
    message_id: MessageID | None = None


class _AnyFile(_Model):
    name: str = Field(default="", max_length=1_000, description="What the person calls it.")
    type: str | None = Field(
        default=None,
        max_length=200,
        description="What it has to be, as a media type. What it is is read from its bytes, and the message refused if "
        "that is something else.",
    )


class FileData(_AnyFile):
    """A file."""

    data: str = Field(
        min_length=1, description="Its bytes, in base64.", json_schema_extra={"contentEncoding": "base64"}
    )


class FileLink(_AnyFile):
    """A file that the server fetches."""

    url: str = Field(max_length=MAX_URL, pattern="^https://", description="Its address, in the public Internet.")


FileBody = FileData | FileLink


class FilesMessage(_Model):
    """A message with files, with words or without."""

    text: str = Field(default="", max_length=MAX_MESSAGE, description="What the person says.")
    files: list[FileBody] = Field(min_length=1, max_length=100)
    message_id: MessageID | None = None


class Answer(_Model):
    """The answer to a question."""

    interrupt_id: str = Field(max_length=MAX_MESSAGE_ID, description="The `id` of a reply's `interrupt`.")
    value: Any = Field(description="The answer: any JSON.")


class AnswerMessage(_Model):
    """A message that answers the question that an agent has asked."""

    resume: Answer
    message_id: MessageID | None = None


def _form(body: Any) -> str:
    """Which of the forms a body has, so that a fault is told of that one alone."""
    for form, kind in (("resume", AnswerMessage), ("files", FilesMessage)):
        if form in body if isinstance(body, dict) else isinstance(body, kind):
            return form
    return "text"


IncomingBody = Annotated[
    Annotated[TextMessage, Tag("text")]
    | Annotated[FilesMessage, Tag("files")]
    | Annotated[AnswerMessage, Tag("resume")],
    Discriminator(_form),
]
"""A message in words, with files, or the answer to a question."""

FORMS = frozenset({"text", "files", "resume"})
"""The forms of a body, as they stand between `body` and a value in the place of a fault."""


class Question(BaseModel):
    """A question of an agent that waits for an answer."""

    id: str
    value: Any


class ReplyBody(BaseModel):
    """The reply to a message."""

    message_id: str | None = Field(description="The ID of the message, even if it came without one.")
    text: str
    agent: str | None = Field(description="Who answered; null: the manager itself.")
    turn_no: int = Field(description="The number of the turn on its device, from 1.")
    replayed: bool = Field(description="Whether the message was answered before; this is the stored reply.")
    handoffs: list[str]
    interrupt: Question | None
    usage: dict[str, Any] = Field(description="The tokens that the turn cost.")
    notice: str | None = Field(description="What the person is told beside it, such as that another device has joined.")
    recovered: list[dict[str, Any]] = Field(description="Replies of earlier turns that had been cut off by a crash.")
    degraded: bool = Field(description="Whether it was answered without memory and without effects.")
    output: dict[str, Any] | None = Field(description="The answer for programs, of an agent that gives one.")


class LimitsBody(BaseModel):
    """What the files of a message may be."""

    file_types: list[str] = Field(description="Their media types; all kinds of text are text/plain.")
    file_max: int = Field(description="Bytes of a file.")
    files_max: int = Field(description="Files of a message; 0: none are accepted.")
    files_total_max: int = Field(description="Bytes of all files of a message.")


class KeptFile(BaseModel):
    """A file that came with a message."""

    hash: str = Field(description="Its place: `/v1/files/{hash}`.")
    type: str = Field(description="What its bytes are.")
    name: str = Field(description="What its sender called it.")
    size: int = Field(description="Its bytes.")


class TurnBody(BaseModel):
    """A turn of the transcript."""

    turn_no: int
    message_ids: list[str] = Field(description="Of the turn's messages, in the order of `texts`.")
    texts: list[str]
    files: list[list[KeptFile]] = Field(
        description="The files of each message, in the order of `texts`; empty if none had any."
    )
    by: str | None = Field(description="Who gave the answer in `texts`, if it was not the person.")
    reply: str
    agent: str | None
    handoffs: list[str]
    interrupt: Question | None = Field(description="What the turn asked; it may have been answered since.")
    output: dict[str, Any] | None = Field(description="The answer for programs, of an agent that gives one.")
    started_at: datetime
    committed_at: datetime
    rewound_at: datetime | None = Field(description="When the conversation was rewound to an earlier turn.")


class TranscriptBody(BaseModel):
    """A page of the transcript."""

    turns: list[TurnBody] = Field(description="The newest turn first.")
    next: int | None = Field(description="The `before` of the next page; null: there is none.")
    as_of: datetime | None = Field(
        description="The moment up to which all turns are there, if a replica answered; null: all until now are."
    )


class SessionBody(BaseModel):
    """What the device has open."""

    agent: str | None = Field(description="The agent that holds the session; null: none does.")
    since: datetime | None
    expires_at: datetime | None
    pending: Question | None = Field(description="The question that waits for an answer.")


class StopBody(BaseModel):
    """Whether a turn was stopped."""

    stopped: bool = Field(description="False: no turn of this message is running.")


class DeviceBody(BaseModel):
    """A new device."""

    device_id: str
    token: str = Field(description="For the header `Authorization`, after the word `Bearer`.")
    expires_at: datetime


class CodeBody(BaseModel):
    """A code with which another device can join this one's conversation."""

    code: str = Field(description="Eight letters and digits, with a hyphen in between.")
    expires_in: float = Field(description="Seconds for which it can be used, once.")


class LinkBody(_Model):
    """The code that the other device was given."""

    code: str = Field(min_length=1, max_length=32, description="Case and hyphens do not matter.")


class LinkedBody(BaseModel):
    """One of the devices that have the same conversation."""

    this: bool = Field(description="Whether it is the device that asks.")
    linked_at: datetime | None = Field(description="When it joined; null: it was the first.")


class DevicesBody(BaseModel):
    """The devices that have the same conversation, without their IDs."""

    devices: list[LinkedBody]


class UnlinkedBody(BaseModel):
    """Whether the device has left a conversation."""

    unlinked: bool = Field(description="False: it shares none.")


class HealthBody(BaseModel):
    """How the process is."""

    status: str


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What to do about it.")
    error: str = Field(description="The kind of error.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    message_id: str | None = Field(description="The ID with which to send the message again.")
    effects_kept: bool = Field(description="Whether anything that tools did for the message stands, or may stand.")
