"""How a model is asked, beyond its messages and tools: options that every implementation of `Model` takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_HOTTEST = 2
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_OURS = frozenset(
    {
        *("model", "messages", "input", "instructions", "tools", "tool_choice", "stream", "stream_options", "n"),
        *("response_format", "text", "temperature", "max_tokens", "max_completion_tokens", "max_output_tokens"),
        *("reasoning_effort", "store", "include", "previous_response_id", "conversation", "background"),
    }
)
"""Fields of a request that have a place of their own, or on which its answer's being understood depends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSchema:
    """What an answer has to be: the JSON text of an object that fits a JSON schema.

    Raises `ValueError` for a name that servers do not take (1 to 64 letters, digits, underscores, hyphens), and for a
    schema that is not an object's.
    """

    name: str
    schema: Mapping[str, Any]
    description: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} cannot name a schema: use 1 to 64 letters, digits, underscores, hyphens.")
        if self.schema.get("type") != "object":
            raise ValueError(f"Schema {self.name}: an answer has to be an object with named fields.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What is None is left to the model's server. Raises `ValueError` for values that no server takes.

    A server that does not take one of the first three is asked without it from then on, which is logged once. With a
    `schema`, the text of an answer that calls no tool is JSON that was made to fit it: by the server's own mode, or,
    where there is none, by a tool. Only the caller checks whether it does fit.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    """Tokens that an answer may have, its reasoning included; a longer one raises `AnswerCutOff`."""
    reasoning_effort: str | None = None
    """A word of the server's, such as `low`."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the request, as JSON, as the server's API has them; they are sent as they are."""
    schema: AnswerSchema | None = None

    def __post_init__(self) -> None:
        heat, most, effort = self.temperature, self.max_tokens, self.reasoning_effort
        if heat is not None and not (_is_number(heat) and math.isfinite(heat) and 0 <= heat <= _HOTTEST):
            raise ValueError(f"temperature must be a number from 0 to {_HOTTEST}, not {heat!r}.")
        if most is not None and not (isinstance(most, int) and _is_number(most) and most > 0):
            raise ValueError(f"max_tokens must be a positive whole number, not {most!r}.")
        if effort is not None and not (isinstance(effort, str) and effort.strip()):
            raise ValueError(f"reasoning_effort must be a word that the model's server knows, not {effort!r}.")
        if taken := sorted(_OURS & self.extra_body.keys()):
            raise ValueError(f"extra_body must not have {', '.join(taken)}: Moorline fills that in itself.")
        try:
            json.dumps(dict(self.extra_body), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra_body must be JSON: {error}.") from error


NO_OPTIONS = ModelOptions()
"""Everything is left to the server."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
