"""Models without a server: a function behind the real OpenAI client, in place of the network.

The rehearsal, the recorded and the scripted model are such functions. Everything above the transport (client,
streaming, errors, retries) is the same as with a real model.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from moorline_agents.briefing import parted
from moorline_agents.messages import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openai import AsyncOpenAI

    from moorline_agents.messages import Message

_CALL_ID = re.compile(r"call_(\d+)")
_READ = {"model", "messages", "tools", "tool_choice", "stream"}  # fields of a `ModelRequest`
_PIECES = 4  # into which an answer's text and each call's arguments are split for streaming


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model is shown: the parsed body of one chat-completions request."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: Any = None
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    """All else that the body holds, such as `stream_options`."""

    @property
    def system(self) -> str:
        """The text of all system messages."""
        return "\n\n".join(m["content"] or "" for m in self.messages if m["role"] == "system")

    @property
    def said(self) -> tuple[str, ...]:
        """What the person said, without briefings and files."""
        return tuple(parted(_text(m))[1] for m in self.messages if m["role"] == "user")

    @property
    def briefing(self) -> str:
        """The last briefing in it: what an agent was told with the message that is being answered; "" if nothing."""
        return next(filter(None, (parted(_text(m))[0] for m in reversed(self.messages))), "")

    @property
    def functions(self) -> dict[str, Mapping[str, Any]]:
        """The offered functions by name: description and JSON schema of the parameters."""
        return {tool["function"]["name"]: tool["function"] for tool in self.tools}


def _text(message: Message) -> str:
    """Its text, which is one part of it if it has files."""
    content: object = message["content"]
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return str(content or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A tool call of an answer; arguments given as text are sent as they are, JSON or not."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the call that OpenAI's schema does not have, such as a signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """A model's answer."""

    text: str | None = None
    calls: tuple[Call, ...] = ()
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    """If None, it follows from the rest of the answer."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the message that OpenAI's schema does not have, such as `reasoning_content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """Any HTTP answer: an error, or a stream that breaks off, is garbled or stalls."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: tuple[bytes, ...] = ()
    pause: float = 0.0
    """Seconds before each piece except the first."""


Reply = ModelReply | RawReply
Rules = Callable[[ModelRequest], Reply | Awaitable[Reply]]


class RuleTransport(httpx2.AsyncBaseTransport):
    """Answers chat-completions requests by `rules`, without a connection; any event loop may use it.

    An error that `rules` raises comes out of the client's call unchanged.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raw = await respond(self._rules, await request.aread())
        return httpx2.Response(raw.status, headers=dict(raw.headers), stream=_Pieces(raw), request=request)


def rule_client(rules: Rules) -> AsyncOpenAI:
    """A real `AsyncOpenAI` client whose model is `rules`. It needs no key and reads no proxy settings."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - slow to import, and not needed to define rules

    return AsyncOpenAI(
        api_key="rules",
        base_url="http://rules.invalid/v1",
        http_client=httpx2.AsyncClient(transport=RuleTransport(rules), trust_env=False),
    )


async def respond(rules: Rules, body: bytes) -> RawReply:
    """The HTTP answer of `rules` to the body of a chat-completions request.

    Raises `ValueError` or `KeyError` for a body that is not such a request, and whatever `rules` raises.
    """
    parsed = json.loads(body)
    request = ModelRequest(
        model=parsed["model"],
        messages=tuple(parsed["messages"]),
        tools=tuple(parsed.get("tools", ())),
        tool_choice=parsed.get("tool_choice"),
        stream=bool(parsed.get("stream")),
        options={name: value for name, value in parsed.items() if name not in _READ},
    )
    reply = rules(request)
    if inspect.isawaitable(reply):
        reply = await reply
    if isinstance(reply, RawReply):
        return reply
    if request.stream:
        return RawReply(headers={"content-type": "text/event-stream"}, pieces=tuple(_events(request, reply)))
    return RawReply(
        headers={"content-type": "application/json"},
        pieces=(json.dumps(_completion(request, reply)).encode(),),
    )


async def pieces_of(reply: RawReply) -> AsyncIterator[bytes]:
    """The body of `reply`, piece by piece, with its pauses."""
    for number, piece in enumerate(reply.pieces):
        if number and reply.pause:
            await asyncio.sleep(reply.pause)
        yield piece


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, reply: RawReply) -> None:
        self._reply = reply

    def __aiter__(self) -> AsyncIterator[bytes]:
        return pieces_of(self._reply)


def _events(request: ModelRequest, reply: ModelReply) -> Iterator[bytes]:
    """The answer as a server streams it: the role, text and calls in pieces, the finish reason, the usage."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if reply.text is None else "", **reply.extra}]
    deltas += ({"content": piece} for piece in _split(reply.text or ""))
    for index, call in enumerate(_calls(request, reply)):
        head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        for piece in _split(call["function"]["arguments"]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    for delta in deltas:
        yield _event(request, choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    yield _event(request, choices=[{"index": 0, "delta": {}, "finish_reason": _finish_reason(reply)}])
    yield _event(request, choices=[], usage=_usage(reply))
    yield b"data: [DONE]\n\n"


def _event(request: ModelRequest, **content: Any) -> bytes:
    chunk = {
        "id": "rules",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": request.model,
        **content,
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _completion(request: ModelRequest, reply: ModelReply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, **reply.extra}
    if reply.calls:
        message["tool_calls"] = _calls(request, reply)
    return {
        "id": "rules",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(reply)}],
        "usage": _usage(reply),
    }


def _calls(request: ModelRequest, reply: ModelReply) -> list[dict[str, Any]]:
    """IDs continue from those in the request, so that the same request gets the same answer and no ID comes twice."""
    ids = (call["id"] for message in request.messages for call in message.get("tool_calls") or ())
    earlier = max((int(match[1]) for match in map(_CALL_ID.fullmatch, ids) if match), default=0)
    return [
        {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": call.name, "arguments": _arguments_text(call)},
            **call.extra,
        }
        for number, call in enumerate(reply.calls, start=earlier + 1)
    ]


def _arguments_text(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))


def _finish_reason(reply: ModelReply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.calls else "stop")


def _usage(reply: ModelReply) -> dict[str, int]:
    prompt, completion = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _split(text: str) -> list[str]:
    size = -(-len(text) // _PIECES) or 1
    return [text[start : start + size] for start in range(0, len(text), size)]
