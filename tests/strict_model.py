"""A model server that is as strict as the real ones: it answers as its rules do, and refuses what they refuse."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moorline_agents.transport import ModelReply, ModelRequest, RawReply, Reply, Rules

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LONGEST_ID = 40
PICTURE = re.compile("data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*")
DOCUMENT = re.compile("data:application/pdf;base64,[A-Za-z0-9+/]+=*")
FIELDS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "refusal"},
    "tool": {"role", "content", "tool_call_id"},
}
CALL_FIELDS = {"id", "type", "function"}
PARAMETERS = {"stream_options", "temperature", "max_tokens", "parallel_tool_calls"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """What one kind of server refuses beyond what all of them do, and in which words."""

    name: str
    too_long: str = "This model's maximum context length is {limit} tokens. However, you requested {asked} tokens."
    too_long_code: Any = None
    error_type: str = "invalid_request_error"
    extra_fields: bool = False
    """Whether it takes fields that are not in OpenAI's schema."""
    signs_calls: bool = False
    """Whether it signs the first call of an answer and wants the signature back within the turn."""
    reasons: bool = False
    """Whether it sends its reasoning with an answer and wants that of answers with calls back within the turn."""
    reasons_always: bool = False
    """Whether it wants it back in later turns, too; otherwise it refuses it there."""
    thinking: bool = False
    """Whether it thinks, and so refuses a forced `tool_choice`."""
    in_list: bool = False
    """Whether its errors stand in a list."""


OPENAI = Server(name="OpenAI", too_long_code="context_length_exceeded")
VLLM = Server(name="vLLM", extra_fields=True, too_long_code=400, error_type="BadRequestError")
LLAMA_CPP = Server(
    name="llama.cpp",
    extra_fields=True,
    too_long="the request exceeds the available context size, try increasing it",
    too_long_code=400,
    error_type="exceed_context_size_error",
)
GEMINI = Server(
    name="Gemini",
    too_long="The input token count ({asked}) exceeds the maximum number of tokens allowed ({limit}).",
    too_long_code=400,
    extra_fields=True,
    signs_calls=True,
    thinking=True,
    in_list=True,
)
DEEPSEEK = Server(name="DeepSeek", extra_fields=True, reasons=True, thinking=True)
DEEPSEEK_4 = replace(DEEPSEEK, name="DeepSeek 4", reasons_always=True)
SERVERS = (OPENAI, VLLM, LLAMA_CPP, GEMINI, DEEPSEEK, DEEPSEEK_4)


@dataclass(frozen=True)
class Refusal(Exception):
    """Why a request is refused."""

    message: str
    param: str | None = None
    code: Any = None


@dataclass(kw_only=True)
class StrictModel:
    """Rules that answer as `rules` do, unless the request breaks one of the server's: then the answer is its 400.

    A test that goes well asserts that `refused` is empty, or holds only what the runtime is meant to learn.
    """

    rules: Rules
    server: Server = OPENAI
    limit: int = 8_000
    """Tokens that a request may have, of four characters each."""
    requests: list[ModelRequest] = field(default_factory=list)
    """All that were taken, in order."""
    refused: list[str] = field(default_factory=list)
    """What was refused, in the server's words."""
    _answers: int = 0

    async def __call__(self, request: ModelRequest) -> Reply:
        try:
            self._check(request)
        except Refusal as refusal:
            self.refused.append(refusal.message)
            return self._error(refusal)
        self.requests.append(request)
        reply = self.rules(request)
        answer = await reply if inspect.isawaitable(reply) else reply
        return self._signed(answer) if isinstance(answer, ModelReply) else answer

    def _check(self, request: ModelRequest) -> None:
        asked = len(json.dumps([request.messages, request.tools], ensure_ascii=False)) // 4
        if asked > self.limit:
            message = self.server.too_long.format(limit=self.limit, asked=asked)
            raise Refusal(message, "messages", self.server.too_long_code)
        for check in (_shapes, _pairs, _arguments, _tool_choice):
            check(request)
        if not self.server.extra_fields:
            _known_fields(request)
        if self.server.thinking and not isinstance(request.tool_choice, str | None):
            raise Refusal("The tool_choice parameter does not support being set to required or object in thinking mode")
        if self.server.signs_calls:
            _signatures(request)
        if self.server.reasons:
            _reasoning(request, always=self.server.reasons_always)

    def _signed(self, reply: ModelReply) -> ModelReply:
        self._answers += 1
        if self.server.signs_calls and reply.calls:
            first, *others = reply.calls
            signature = {"extra_content": {"google": {"thought_signature": f"signature {self._answers}"}}}
            return replace(reply, calls=(replace(first, extra=signature), *others))
        if self.server.reasons:
            return replace(reply, extra={"reasoning_content": f"reasoning {self._answers}"})
        return reply

    def _error(self, refusal: Refusal) -> RawReply:
        error = {
            "message": refusal.message,
            "type": self.server.error_type,
            "param": refusal.param,
            "code": refusal.code,
        }
        body: Any = [{"error": error}] if self.server.in_list else {"error": error}
        return RawReply(status=400, headers={"content-type": "application/json"}, pieces=(json.dumps(body).encode(),))


def _shapes(request: ModelRequest) -> None:
    spoken = [message for message in request.messages if message["role"] != "system"]
    if not spoken or spoken[0]["role"] != "user":
        raise Refusal("Please ensure that a conversation begins with a user turn.", "messages")
    for at, message in enumerate(request.messages):
        if message["role"] not in FIELDS:
            raise Refusal(f"Invalid value: '{message['role']}'.", f"messages[{at}].role")
        calls = message.get("tool_calls")
        if calls is not None and not calls:
            raise Refusal("[] is too short", f"messages[{at}].tool_calls")
        content: Any = message.get("content")
        if isinstance(content, list) and message["role"] == "user":
            _parts(content, f"messages[{at}].content")
        elif not isinstance(content, str) and not (content is None and calls):
            raise Refusal(f"Invalid 'content': expected a string, got {content!r}.", f"messages[{at}].content")
        if message["role"] == "assistant" and not content and not calls:
            raise Refusal("Assistant message must contain either 'content' or 'tool_calls'!")


def _parts(parts: Sequence[Mapping[str, Any]], where: str) -> None:
    """What a person says beside text: pictures and documents, in base64."""
    if not parts:
        raise Refusal("Expected a non-empty array.", where)
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)} if text:
                continue
            case {"type": "image_url", "image_url": {"url": str(url)}} if PICTURE.fullmatch(url):
                continue
            case {"type": "file", "file": {"filename": str(), "file_data": str(data)}} if DOCUMENT.fullmatch(data):
                continue
            case _:
                raise Refusal(f"Invalid part: {str(part)[:200]}", where)


def _pairs(request: ModelRequest) -> None:
    """Each call has its result, right behind it and in the same order of messages; no result is without a call."""
    waiting: list[str] = []
    for at, message in enumerate(request.messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                raise Refusal(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'.",
                    f"messages[{at}].role",
                )
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            break
        waiting = [call["id"] for call in message.get("tool_calls") or ()]
        if len(set(waiting)) < len(waiting):
            raise Refusal("Duplicate value for 'tool_call_id'.", f"messages[{at}].tool_calls")
    if waiting:
        raise Refusal(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(waiting)}",
            "messages",
        )


def _calls(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for at, message in enumerate(messages):
        for number, call in enumerate(message.get("tool_calls") or ()):
            yield f"messages[{at}].tool_calls[{number}]", call


def _arguments(request: ModelRequest) -> None:
    for where, call in _calls(request.messages):
        if call.get("type") != "function" or not call.get("id") or len(call["id"]) > LONGEST_ID:
            raise Refusal(f"Invalid '{where}'.", where)
        if not NAME.fullmatch(call["function"]["name"]):
            raise Refusal("Invalid name: string does not match pattern '^[a-zA-Z0-9_-]+$'.", f"{where}.function.name")
        try:
            arguments = json.loads(call["function"]["arguments"], parse_constant=_no_constant)
        except (ValueError, TypeError, RecursionError) as error:
            raise Refusal(f"Invalid JSON in arguments: {error}", f"{where}.function.arguments") from None
        if not isinstance(arguments, dict):
            raise Refusal("The arguments of a call must be an object.", f"{where}.function.arguments")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _tool_choice(request: ModelRequest) -> None:
    offered = [tool["function"]["name"] for tool in request.tools]
    choice = request.tool_choice
    if choice is None:
        return
    if not offered:
        raise Refusal("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise Refusal(f"Invalid value: '{choice}'.", "tool_choice")
    elif choice["function"]["name"] not in offered:
        raise Refusal("Tool choice names a function that is not in 'tools'.", "tool_choice")


def _known_fields(request: ModelRequest) -> None:
    for name in request.options.keys() - PARAMETERS:
        raise Refusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for at, message in enumerate(request.messages):
        for name in message.keys() - FIELDS[message["role"]]:
            where = f"messages[{at}].{name}"
            raise Refusal(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
    for where, call in _calls(request.messages):
        for name in call.keys() - CALL_FIELDS:
            raise Refusal(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")


def _turn(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the turn that is being answered begins: the position of the person's last message."""
    return max(at for at, message in enumerate(messages) if message["role"] == "user")


def _signatures(request: ModelRequest) -> None:
    for message in request.messages[_turn(request.messages) :]:
        for call in (message.get("tool_calls") or ())[:1]:
            extra: Any = call.get("extra_content")
            if not str((extra or {}).get("google", {}).get("thought_signature", "")).startswith("signature "):
                raise Refusal(
                    "Function call is missing a thought_signature in functionCall parts. Additional data, function "
                    f"call `default_api:{call['function']['name']}`."
                )


def _reasoning(request: ModelRequest, *, always: bool) -> None:
    turn = _turn(request.messages)
    for at, message in enumerate(request.messages):
        if message["role"] != "assistant":
            continue
        given = "reasoning_content" in message
        if at < turn and not always:
            if given:
                raise Refusal(f"Unexpected `reasoning_content` at message index {at}.", code="invalid_request_error")
        elif message.get("tool_calls") and not given:
            raise Refusal("The `reasoning_content` in the thinking mode must be passed back to the API.")
