"""The file of recorded conversations: one JSON object per line.

    {"id": "c1", "services": ["Salon"], "turns": [
        {"role": "user", "text": "A haircut, please.", "services": ["Salon"]},
        {"role": "assistant", "text": "Is 10:00 fine?", "services": ["Salon"],
         "calls": [{"service": "Salon", "method": "find", "parameters": {"day": "Monday"}, "results": ["10:00"]}]}]}

User and assistant alternate, and the user begins. An assistant turn belongs to exactly one service, whose agent
answered; `calls` are the tool calls it made before it answered, with their results. Other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moorline.errors import ConfigurationError


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RecordedCall(_Record):
    """A tool call as it was recorded."""

    service: str = Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")
    method: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    parameters: dict[str, Any] = {}
    results: Any = None


class Spoken(_Record):
    """One message, of the person or of the assistant."""

    role: Literal["user", "assistant"]
    text: str = Field(min_length=1)
    services: tuple[str, ...] = ()
    calls: tuple[RecordedCall, ...] = ()


class RecordedTurn(_Record):
    """What the person said and what the service's agent answered."""

    message: str
    service: str
    calls: tuple[RecordedCall, ...]
    reply: str


class Conversation(_Record):
    """One line of the file."""

    id: str = Field(min_length=1, max_length=80)
    turns: tuple[Spoken, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _alternate(self) -> Conversation:
        for number, spoken in enumerate(self.turns):
            expected = ("user", "assistant")[number % 2]
            if spoken.role != expected:
                raise ValueError(f"turn {number + 1} is the {spoken.role}'s, it should be the {expected}'s")
            if expected == "assistant" and len(spoken.services) != 1:
                raise ValueError(f"turn {number + 1} of the assistant belongs to one service exactly")
        if len(self.turns) % 2:
            raise ValueError("the last turn is the person's; nobody answered it")
        return self

    def recorded(self) -> list[RecordedTurn]:
        """The conversation as pairs of message and answer."""
        pairs = zip(self.turns[::2], self.turns[1::2], strict=True)
        return [
            RecordedTurn(message=user.text, service=answer.services[0], calls=answer.calls, reply=answer.text)
            for user, answer in pairs
        ]


def read_conversations(path: Path) -> Iterator[Conversation]:
    """The conversations of a file, one by one. Raises `ConfigurationError` naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); pass a file of JSON lines in UTF-8.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Conversation.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigurationError(
                f"{path}, line {number}{': ' + where if where else ''}: {first['msg']}. "
                "docs/replay.md describes the format."
            ) from error
