"""What a model is shown and answers: chat-completions messages as plain dicts, and the tokens they cost.

They are plain dicts on purpose: these go over the wire as they are, and a strict deserialiser accepts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, NotRequired, Required, TypedDict

_COUNTED = ("prompt_tokens", "completion_tokens")


class FunctionCall(TypedDict):
    """The tool that a model names, and the JSON text it wrote as arguments; neither has been checked."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """One call in a model's answer; the `tool` message with its result refers to its `id`.

    `extra` holds fields that the server needs back (`id` among them if its own cannot be used with other servers).
    `refused` says why the call was not made.
    """

    id: str
    type: Literal["function"]
    function: FunctionCall
    extra: NotRequired[Mapping[str, Any]]
    refused: NotRequired[str]


class FileNote(TypedDict):
    """What a history has of a file: the SHA-256 of its bytes, its media type, what its sender called it, and its
    bytes' number."""

    hash: str
    type: str
    name: str
    size: int


class Message(TypedDict, total=False):
    """One message of a conversation, in the form that chat-completions servers use.

    `tool_calls` is on assistant messages that call tools (`content` may then be None), `tool_call_id` on
    `tool` messages, `files` on messages of the person that came with some: a model gets these as a `content` that is a
    list of parts. `briefing` is what an agent was told along with the person's message, or with a result: histories
    keep it by itself, and a model is shown it as part of the content. `extra` holds fields of an answer that OpenAI's
    schema does not have and that its server may need back; `origin` says which server and model that is. A model sends
    other servers neither.
    """

    role: Required[Literal["system", "user", "assistant", "tool"]]
    content: Required[str | None]
    tool_calls: list[ToolCall]
    tool_call_id: str
    files: list[FileNote]
    briefing: str
    extra: Mapping[str, Any]
    origin: str


class Usage(Mapping[str, int]):
    """Tokens as the servers counted them, zero if they did not say: a mapping with `prompt_tokens` and
    `completion_tokens`. Usages can be added, also with `sum`; they do not change."""

    __slots__ = ("_counts",)

    def __init__(self, prompt_tokens: int = 0, completion_tokens: int = 0, *, model: str = "", agent: str = "") -> None:
        counted = prompt_tokens or completion_tokens
        self._counts = {(model, agent): (prompt_tokens, completion_tokens)} if counted else {}

    @property
    def prompt_tokens(self) -> int:
        return sum(prompt for prompt, _ in self._counts.values())

    @property
    def completion_tokens(self) -> int:
        return sum(completion for _, completion in self._counts.values())

    @property
    def by_model(self) -> Mapping[str, Usage]:
        """The usage of each model, by its name; each has a `by_agent` of its own."""
        return self._parts(0)

    @property
    def by_agent(self) -> Mapping[str, Usage]:
        """The usage of each agent, and of the router as `route`, by its name."""
        return self._parts(1)

    def labelled(self, *, model: str, agent: str) -> Usage:
        """The same usage, of this model and agent as far as it is not known whose it is."""
        return self._sum(((own or model, by or agent), count) for (own, by), count in self._counts.items())

    def as_json(self, agent: str | None) -> dict[str, Any]:
        """The usage as short JSON, for a turn that was answered by the agent; `of_json` reads it."""
        models: dict[str, Any] = {}
        for (model, by), count in self._counts.items():
            models.setdefault(model, {})[by] = list(count)
        return {model: by[agent or ""] if [*by] == [agent or ""] else by for model, by in models.items()}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any], agent: str | None) -> Usage:
        """The usage of which `as_json` made the JSON, or of which earlier versions wrote only the sums."""
        if isinstance(stored.get("prompt_tokens"), int):
            return cls(stored["prompt_tokens"], stored["completion_tokens"], agent=agent or "")
        by_model = {m: counts if isinstance(counts, dict) else {agent or "": counts} for m, counts in stored.items()}
        return cls._sum(((model, by), count) for model, counts in by_model.items() for by, count in counts.items())

    @classmethod
    def _sum(cls, counts: Iterable[tuple[tuple[str, str], Sequence[int]]]) -> Usage:
        """The usage of all that was counted, each by whose it is: by model and agent."""
        usage = cls()
        for whose, (prompt, completion) in counts:
            before = usage._counts.get(whose, (0, 0))
            usage._counts[whose] = (before[0] + prompt, before[1] + completion)
        return usage

    def _parts(self, label: int) -> dict[str, Usage]:
        parts: dict[str, Usage] = {}
        for key, count in self._counts.items():
            parts[key[label]] = parts.get(key[label], Usage()) + Usage(*count, model=key[0], agent=key[1])
        return parts

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        if not self._counts:
            return other
        return self._sum(chain(self._counts.items(), other._counts.items()))

    def __radd__(self, other: int) -> Usage:
        return self if other == 0 else NotImplemented  # `sum` begins with 0

    def __hash__(self) -> int:
        return hash((self.prompt_tokens, self.completion_tokens))

    def __getitem__(self, name: str) -> int:
        if name not in _COUNTED:
            raise KeyError(name)
        tokens: int = getattr(self, name)
        return tokens

    def __iter__(self) -> Iterator[str]:
        return iter(_COUNTED)

    def __len__(self) -> int:
        return len(_COUNTED)

    def __repr__(self) -> str:
        return f"Usage({self.prompt_tokens}, {self.completion_tokens})"


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A whole answer: an assistant message with text, tool calls or both, and what it cost."""

    message: Message
    usage: Usage = Usage()
    finish_reason: str | None = None
    """Why the model stopped, in its server's word; None if that did not say."""
