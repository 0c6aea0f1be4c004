"""Which role the rehearsal model plays in a request, and what it does as router, concierge and unknown agent."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moorline_agents.concierge import INSTRUCTIONS
from moorline_agents.control import END_SESSION_SCHEMA, hand_over_schema, route_schema
from moorline_agents.messages import Message, ToolCall
from moorline_agents.model import ChatModel
from moorline_agents.rehearsal import rehearsal_client, rehearse
from moorline_agents.scheduling.tools import scheduling_tools
from moorline_agents.transport import ModelReply, ModelRequest

from .conftest import SYSTEM

AGENTS = {"scheduling": "appointments", "concierge": "everything else"}
UTTERANCES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
]
FOR_THE_CONCIERGE = [
    "Hello!",
    "Thank you",
    "Bye!",
    "What can you do?",
    "Tell me a joke",
    "What's the weather tomorrow?",
]
FOR_THE_CONCIERGE += ["Who are you?", "See you tomorrow", "I am reading a book", "How are you today?!", "", "???", "42"]


def request(
    *messages: Message, system: str = "", tools: list[dict[str, Any]] | None = None, **options: Any
) -> ModelRequest:
    shown: list[Message] = [{"role": "system", "content": system}, *messages]
    return ModelRequest(model="m", messages=tuple(shown), tools=tuple(tools or ()), **options)


def said(text: str) -> Message:
    return {"role": "user", "content": text}


def routed(text: str, agents: dict[str, str] | None = None) -> str:
    reply = rehearse(request(said(text), tools=[route_schema(agents or AGENTS)]))
    assert [call.name for call in reply.calls] == ["route"]
    arguments = reply.calls[0].arguments
    assert not isinstance(arguments, str)
    return str(arguments["agent"])


def as_concierge(text: str) -> ModelReply:
    return rehearse(request(said(text), system=INSTRUCTIONS, tools=[hand_over_schema({"scheduling": "appointments"})]))


def as_scheduling(*messages: Message, **options: Any) -> ModelReply:
    control = [hand_over_schema({"concierge": "everything else"}), END_SESSION_SCHEMA]
    tools = [*(tool.schema for tool in scheduling_tools()), *control]
    return rehearse(request(*messages, **{"system": SYSTEM, "tools": tools, **options}))


def handed_over(reply: ModelReply) -> bool:
    return "hand_over" in [call.name for call in reply.calls]


@pytest.mark.parametrize("text", FOR_THE_CONCIERGE)
def test_small_talk_goes_to_the_concierge(text: str) -> None:
    assert routed(text) == "concierge"


@pytest.mark.parametrize(
    "text",
    [line["said"] for line in UTTERANCES if line["calls"] and line["calls"][0][0] not in ("hand_over", "end_session")],
)
def test_appointments_go_to_scheduling(text: str) -> None:
    assert routed(text) == "scheduling"


@pytest.mark.parametrize("text", [*FOR_THE_CONCIERGE, *(line["said"] for line in UTTERANCES)])
def test_nothing_is_handed_back_and_forth(text: str) -> None:
    assert not (handed_over(as_concierge(text)) and handed_over(as_scheduling(said(text))))


def test_an_agent_is_routed_to_by_name() -> None:
    agents = {**AGENTS, "billing": "invoices"}
    assert routed("I have a question for billing about my appointment", agents) == "billing"


def test_routing_without_the_agents_that_ship_picks_one_that_is_there() -> None:
    assert routed("anything", {"billing": "invoices", "support": "help"}) == "billing"


def test_the_concierge_hands_over_what_is_about_appointments() -> None:
    (call,) = as_concierge("I want to book a haircut").calls
    assert call.arguments == {"agent": "scheduling", "reason": "about appointments"}


def test_the_concierge_talks_about_the_rest() -> None:
    answers = {text: as_concierge(text).text or "" for text in FOR_THE_CONCIERGE}
    assert all(answers.values())
    assert "Hello" in answers["Hello!"]
    assert "appointments" in answers["What can you do?"]
    assert "calendar" in answers["Tell me a joke"]


def test_a_concierge_with_nobody_to_hand_over_to_still_answers() -> None:
    assert rehearse(request(said("Book a haircut"), system=INSTRUCTIONS)).text


def test_another_agent_repeats_what_it_heard() -> None:
    tool = {"type": "function", "function": {"name": "find_invoice", "parameters": {"type": "object"}}}
    reply = rehearse(request(said("Where is my\ninvoice?"), system="You do invoices.", tools=[tool]))
    assert reply.text is not None
    assert reply.text.endswith("Where is my invoice?")
    long = rehearse(request(said("x" * 1_000_000), system="You do invoices."))
    assert long.text is not None
    assert len(long.text) < 400


def test_another_agent_ends_its_session_and_hands_over_appointments() -> None:
    tools = [hand_over_schema(AGENTS), END_SESSION_SCHEMA]
    assert rehearse(request(said("bye"), tools=tools)).calls[0].name == "end_session"
    assert rehearse(request(said("book a haircut"), tools=tools)).calls[0].name == "hand_over"


@pytest.mark.parametrize("text", ["Book a haircut tomorrow at 10", "Bye", "Tell me a joke", "What do you offer?"])
def test_where_tools_may_not_be_called_it_only_speaks(text: str) -> None:
    reply = as_scheduling(said(text), tool_choice="none")
    assert reply.text
    assert not reply.calls


def test_the_time_is_read_from_either_line() -> None:
    spoken = "Now it is Sunday 22 November 2026, 15:44, time zone Europe/Berlin."
    results: list[Message] = [
        said("Book a haircut tomorrow at 10"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "find_slots", "arguments": "{}"}}],
        },
        {
            "role": "tool",
            "tool_call_id": "1",
            "content": json.dumps({"services": [{"service": "Haircut", "minutes": 30, "providers": ["Ana"]}]}),
        },
    ]
    for system in (SYSTEM, spoken):
        (call,) = as_scheduling(*results, system=system).calls
        assert call.arguments == {"service": "Haircut", "start": "2026-11-23T10:00"}
    (call,) = as_scheduling(*results, system="No time is told.").calls
    assert call.arguments == {"service": "Haircut"}


def test_the_same_request_gets_the_same_answer() -> None:
    for line in UTTERANCES:
        assert as_scheduling(said(line["said"])) == as_scheduling(said(line["said"]))


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([], id="nothing said"),
        pytest.param([{"role": "user", "content": None}], id="no content"),
        pytest.param([{"role": "user", "content": [{"type": "text", "text": "hello"}]}], id="parts"),
        pytest.param([{"role": "tool", "content": "{}", "tool_call_id": "x"}], id="a result of no call"),
        pytest.param([{"role": "tool", "content": "not JSON", "tool_call_id": "x"}], id="a result that is no JSON"),
        pytest.param([{"role": "assistant", "content": "Hi."}], id="nobody asked"),
        pytest.param([{"role": "user", "content": "what my " * 200_000}], id="a very long message"),
        pytest.param([{"role": "user", "content": "\0\ufffd\u202e🙂" * 10}], id="odd characters"),
    ],
)
def test_odd_requests_are_answered(messages: list[Any]) -> None:
    reply = as_scheduling(*messages)
    assert reply.text or reply.calls


@pytest.mark.parametrize("tool", ["find_slots", "book", "list_appointments", "move", "cancel"])
@pytest.mark.parametrize(
    "content", ['{"slots": [1]}', '{"services": 3}', '{"appointments": [{}]}', '{"appointment": 0}']
)
def test_results_kept_from_another_version_are_passed_over(tool: str, content: str) -> None:
    call: ToolCall = {"id": "1", "type": "function", "function": {"name": tool, "arguments": "{}"}}
    reply = as_scheduling(
        said("Hello"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": content},
        {"role": "assistant", "content": "Hello!"},
        said("Do I have any appointments?"),
    )
    assert [made.name for made in reply.calls] == ["list_appointments"]


def test_a_failed_hand_over_does_not_go_round_in_circles() -> None:
    arguments = '{"agent": "nobody"}'
    call: ToolCall = {"id": "1", "type": "function", "function": {"name": "hand_over", "arguments": arguments}}
    reply = as_scheduling(
        said("Tell me a joke"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": '{"error": "There is no agent nobody."}'},
    )
    assert reply.text
    assert not reply.calls


async def test_the_rehearsal_as_a_server_of_its_own() -> None:
    command = (sys.executable, "-m", "moorline.testing")
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        base_url = (await server.stdout.readline()).decode().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", base_url)
        from openai import AsyncOpenAI

        model = ChatModel(client=lambda: AsyncOpenAI(api_key="any", base_url=base_url), model="m", timeout=30)
        answer = await model.complete([said("Book a haircut")], tools=[route_schema(AGENTS)])
        await model.aclose()
    finally:
        server.terminate()
        await server.communicate()
    assert answer.message["tool_calls"][0]["function"]["arguments"] == '{"agent": "scheduling"}'


async def test_the_rehearsal_client_is_a_real_client() -> None:
    model = ChatModel(client=rehearsal_client, model="m", timeout=30)
    shown: list[str] = []
    answer = await model.complete([said("hello")], on_text=shown.append)
    assert "".join(shown) == answer.message["content"]
    assert len(shown) > 1
    await model.aclose()
