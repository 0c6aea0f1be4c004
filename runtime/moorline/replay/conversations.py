"""The file of recorded conversations: one JSON object per line.

    {"id": "c1", "services": ["Salon"], "turns": [
        {"role": "user", "text": "A haircut, please.", "services": ["Salon"]},
        {"role": "assistant", "text": "Is 10:00 fine?", "services": ["Salon"],
         "calls": [{"service": "Salon", "method": "find", "parameters": {"day": "Monday"}, "results": ["10:00"]}]}]}

User and assistant alternate, and the user begins. An assistant turn belongs to exactly one service, whose agent
answered; `calls` are the tool calls it made before it answered, with their results. Services, methods and parameters
may have any names. Other keys are ignored.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from moorline.errors import ConfigurationError
from moorline.replay.names import agent_name, tool_name
from moorline_agents.calls import arguments_of
from moorline_agents.json_limits import objection


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _parameters(value: Any) -> Any:
    _, wrong = arguments_of(json.dumps(value))
    if wrong is not None:
        raise ValueError(wrong)
    return value


def _results(value: Any) -> Any:
    wrong = objection(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def _said(text: Any) -> Any:
    if isinstance(text, str) and not text.strip():
        raise ValueError("it says nothing")
    return text


class RecordedCall(_Record):
    """A tool call as it was recorded."""

    service: str
    method: str
    parameters: Annotated[dict[str, Any], BeforeValidator(_parameters)] = {}
    results: Annotated[Any, BeforeValidator(_results)] = None

    @property
    def tool(self) -> str:
        """The name of the tool that plays the method."""
        return tool_name(self.method)


class Spoken(_Record):
    """One message, of the person or of the assistant."""

    role: Literal["user", "assistant"]
    text: Annotated[str, BeforeValidator(_said)]
    services: tuple[str, ...] = ()
    calls: tuple[RecordedCall, ...] = ()


class RecordedTurn(_Record):
    """What the person said and what the service's agent answered."""

    message: str
    agent: str
    """The name of the agent that plays the service."""
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
            RecordedTurn(message=user.text, agent=agent_name(answer.services[0]), calls=answer.calls, reply=answer.text)
            for user, answer in pairs
        ]


def read_conversations(path: Path, *, skipped: list[str] | None = None) -> Iterator[Conversation]:
    """The conversations of a file, one by one.

    Raises `ConfigurationError` naming the line that is wrong. With `skipped`, what is wrong with a line is added there,
    and the others are read.
    """
    try:
        with path.open("rb") as file:
            # Only a line feed ends a line: Python's text files also end them inside a text of the record.
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not content.strip():
                    continue
                try:
                    yield Conversation.model_validate_json(content)
                except ValidationError as error:
                    wrong = f"{path}, line {number}{_complaint(error)}. docs/replay.md describes the format."
                    if skipped is None:
                        raise ConfigurationError(wrong) from error
                    skipped.append(wrong)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); pass a file of JSON lines in UTF-8.") from error


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{': ' + where if where else ''}: {first['msg']}"
