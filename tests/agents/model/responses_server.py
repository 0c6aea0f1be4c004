"""A server with OpenAI's Responses API, behind the real client.

Its streams have the form of those that were recorded from OpenAI's for the tests of github.com/vercel/ai
(packages/openai/src/responses/__fixtures__: openai-reasoning-encrypted-content.1, openai-phase.1, openai-error.1), with
the events and fields that github.com/openai/openai-python has types for (src/openai/types/responses).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
from openai import AsyncOpenAI

from moorline_agents.responses_model import ResponsesModel

Event = dict[str, Any]
Item = dict[str, Any]
USAGE = {
    "input_tokens": 75,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 30,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 105,
}


def message(text: str, *, phase: str | None = None, refusal: bool = False) -> Item:
    kind = {"type": "refusal", "refusal": text} if refusal else _text(text)
    named = {} if phase is None else {"phase": phase}
    return {"type": "message", "status": "completed", "content": [kind], "role": "assistant", **named}


def call(name: str, arguments: str, call_id: str = "call_AB6AaRZ1FYZB2RwS6A5vbdqn") -> Item:
    return {"type": "function_call", "status": "completed", "arguments": arguments, "call_id": call_id, "name": name}


def reasoning(secret: str | None, *summaries: str) -> Item:
    told = [{"type": "summary_text", "text": summary} for summary in summaries]
    return {"type": "reasoning", "summary": told, "encrypted_content": secret}


def stream(*items: Item, status: str = "completed", **response: Any) -> list[Event]:
    """The events of a response that has these items."""
    whole = [{"id": f"item_{place}", **item} for place, item in enumerate(items)]
    begun = _response("in_progress", output=[], usage=None)
    events: list[Event] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for place, item in enumerate(whole):
        events += _events(place, item)
    made = _response(status, output=whole, usage=USAGE, **response)
    events.append({"type": f"response.{status}", "response": made})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


class ResponsesServer:
    """Answers each request with the next stream, unless it objects to it."""

    def __init__(
        self, *streams: Sequence[Event], objection: Callable[[dict[str, Any]], str | None] = lambda _: None
    ) -> None:
        self._streams = list(streams)
        self._objection = objection
        self.requests: list[dict[str, Any]] = []

    @property
    def client(self) -> AsyncOpenAI:
        transport = httpx2.MockTransport(self._respond)
        http_client = httpx2.AsyncClient(transport=transport, trust_env=False)
        return AsyncOpenAI(api_key="k", base_url="http://model.invalid/v1", http_client=http_client, max_retries=0)

    def model(self, name: str = "gpt-5.1") -> ResponsesModel:
        return ResponsesModel(client=self.client, model=name, timeout=30)

    def _respond(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/v1/responses"
        body = json.loads(request.content)
        self.requests.append(body)
        words = self._objection(body)
        if words is not None:
            error = {"message": words, "type": "invalid_request_error", "param": None, "code": None}
            return httpx2.Response(400, json={"error": error})
        told = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in self._streams.pop(0))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=told)


def _response(status: str, **fields: Any) -> dict[str, Any]:
    response = {
        "id": "resp_01830d66",
        "object": "response",
        "created_at": 1765552659,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-5.1-codex-max",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "high", "summary": "detailed"},
        "service_tier": "auto",
        "store": False,
        "temperature": 1,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "metadata": {},
    }
    return response | fields


def _events(place: int, item: Item) -> Iterator[Event]:
    at = {"item_id": item["id"], "output_index": place}
    begun = item | {
        "status": "in_progress",
        "arguments": "",
        "content": [],
        "encrypted_content": "begun",
        "summary": [],
    }
    added = {name: value for name, value in begun.items() if name in item}
    yield {"type": "response.output_item.added", "output_index": place, "item": added}
    if item["type"] == "reasoning":
        yield from _summaries(at, item)
    elif item["type"] == "function_call":
        for delta in _pieces(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **at, "delta": delta, "obfuscation": "2ajSAGID"}
        yield {"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]}
    else:
        yield from _contents(at, item)
    yield {"type": "response.output_item.done", "output_index": place, "item": item}


def _summaries(at: Mapping[str, Any], item: Item) -> Iterator[Event]:
    for number, part in enumerate(item["summary"]):
        here = {**at, "summary_index": number}
        yield {"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}}
        for delta in _pieces(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **here, "delta": delta, "obfuscation": "x"}
        yield {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]}
        yield {"type": "response.reasoning_summary_part.done", **here, "part": part}


def _contents(at: Mapping[str, Any], item: Item) -> Iterator[Event]:
    here = {**at, "content_index": 0}
    (part,) = item["content"]
    kind = "refusal" if part["type"] == "refusal" else "output_text"
    text = part["refusal" if kind == "refusal" else "text"]
    yield {"type": "response.content_part.added", **here, "part": {**part, **({} if kind == "refusal" else _text(""))}}
    for delta in _pieces(text):
        yield {"type": f"response.{kind}.delta", **here, "delta": delta, "logprobs": [], "obfuscation": "x"}
    yield {"type": f"response.{kind}.done", **here, "refusal" if kind == "refusal" else "text": text}
    yield {"type": "response.content_part.done", **here, "part": part}


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _pieces(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]
