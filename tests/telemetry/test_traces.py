"""A turn is one trace, which continues its caller's, whatever becomes of the caller, the turn and its process."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind

from moorline import execution, stops
from moorline.errors import AgentError, ModelError
from moorline.telemetry import Tracing
from moorline.testing import error_reply
from moorline_agents.messages import Usage
from moorline_agents.transport import ModelReply, ModelRequest, RawReply
from tests.turns.runtimes import Stall, World, after_tools, crashed, in_queue, obedient, say

from .traces import Traces, traced


async def test_a_turn_is_a_trace_under_its_callers_span(world_dsn: str, traces: Traces) -> None:
    async with traced(world_dsn, traces) as moorline:
        with traces.tracer.start_as_current_span("POST /webhook"):
            await say(moorline, "book table", "m1")
    assert (
        traces.tree()
        == """\
POST /webhook
  turn
    begin
    invoke_agent desk
      chat gpt-4.1-mini
      execute_tool book
        hold_turn
        INSERT
        journal
        COMMIT
      chat gpt-4.1-mini
    commit"""
    )
    assert len({span.context.trace_id for span in traces.spans if span.context}) == 1


async def test_spans_say_who_what_and_how_much(world_dsn: str, traces: Traces) -> None:
    def counted(request: ModelRequest) -> ModelReply:
        return replace(obedient(request), usage=Usage(7, 5))

    async with traced(world_dsn, traces, rules=counted) as moorline:
        await say(moorline, "book table", "m1")
        tag = await moorline.device_tag("d1")
    assert traces.one("turn") == {
        "gen_ai.conversation.id": tag,
        "gen_ai.agent.name": "desk",
        "moorline.turn.number": 1,
        "moorline.turn.attempt": 1,
        "moorline.turn.messages": 1,
    }
    assert traces.one("invoke_agent desk") == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "desk",
        "gen_ai.conversation.id": tag,
    }
    asked, told = traces.named("chat gpt-4.1-mini")
    assert dict(asked.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.conversation.id": tag,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("tool_calls",),
    }
    assert (told.attributes or {})["gen_ai.response.finish_reasons"] == ("stop",)
    assert traces.one("execute_tool book") == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "book",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_1",
    }
    assert traces.one("begin") == {"db.system.name": "postgresql", "db.query.summary": "begin"}
    kinds = {span.name: span.kind for span in traces.spans}
    assert {name for name, kind in kinds.items() if kind is SpanKind.CLIENT} == {
        *("begin", "commit", "hold_turn", "INSERT", "journal", "COMMIT", "chat gpt-4.1-mini")
    }


async def test_nothing_that_is_said_and_no_device_is_in_a_span(world_dsn: str, traces: Traces) -> None:
    world = World()
    world.failing.add("secret-chair")
    async with traced(world_dsn, traces, world=world) as moorline:
        await say(moorline, "book secret-table", "m1", device="+49123456789")
        with pytest.raises(AgentError):
            await say(moorline, "ring secret-chair", "m2", device="+49123456789")
    assert "secret" not in traces.everything()
    assert "123456789" not in traces.everything()


async def test_what_is_said_is_in_the_spans_if_it_is_asked_for(world_dsn: str, traces: Traces) -> None:
    async with traced(world_dsn, traces, content=True) as moorline:
        await say(moorline, "book table", "m1")
    assert traces.one("execute_tool book")["gen_ai.tool.call.arguments"] == '{"what": "table"}'
    assert traces.one("execute_tool book")["gen_ai.tool.call.result"] == '{"booked": "table"}'
    asked, told = traces.attributes("chat gpt-4.1-mini")
    assert asked["gen_ai.input.messages"] == (
        '[{"role": "system", "parts": [{"type": "text", "content": "desk"}]}, '
        '{"role": "user", "parts": [{"type": "text", "content": "book table"}]}]'
    )
    call = '{"type": "tool_call", "id": "call_1", "name": "book", "arguments": "{\\"what\\": \\"table\\"}"}'
    assert asked["gen_ai.output.messages"] == (
        f'[{{"role": "assistant", "parts": [{call}], "finish_reason": "tool_calls"}}]'
    )
    assert '"type": "tool_call_response", "id": "call_1"' in told["gen_ai.input.messages"]


async def test_what_fails_says_so_on_its_way_up(world_dsn: str, traces: Traces) -> None:
    def refuses(request: ModelRequest) -> RawReply:
        return error_reply(400)

    async with traced(world_dsn, traces, rules=refuses) as moorline:
        with pytest.raises(ModelError):
            await say(moorline, "hello", "m1")
    assert (
        traces.tree()
        == """\
turn ! ModelError
  begin
  invoke_agent desk ! ModelError
    chat gpt-4.1-mini ! ModelError
  release"""
    )
    assert traces.one("turn")["error.type"] == "ModelError"


async def test_a_tool_that_refuses_has_not_failed_and_one_that_raises_has(world_dsn: str, traces: Traces) -> None:
    world = World()
    world.refused.add("moon")
    world.failing.add("sun")
    async with traced(world_dsn, traces, world=world) as moorline:
        await say(moorline, "ring moon", "m1")
        with pytest.raises(AgentError):
            await say(moorline, "ring sun", "m2")
    refused, failed = traces.named("execute_tool ring")
    assert (refused.attributes or {})["moorline.tool.refused"] == "out"
    assert refused.status.is_unset
    assert (failed.attributes or {})["error.type"] == "LookupError"
    assert not failed.status.is_ok
    assert [turn.get("error.type") for turn in traces.attributes("turn")] == [None, "AgentError"]


async def test_a_turn_whose_caller_is_gone_ends_in_the_callers_trace(world_dsn: str, traces: Traces) -> None:
    stall = Stall(after_tools)
    async with traced(world_dsn, traces, rules=stall) as moorline:
        with traces.tracer.start_as_current_span("caller"):
            call = asyncio.create_task(say(moorline, "book table", "m1"))
            await stall.reached.wait()
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert traces.named("turn") == []
        stall.go_on.set()
    (caller,), (turn,) = traces.named("caller"), traces.named("turn")
    assert turn.parent == caller.context
    assert turn.status.is_unset
    assert "commit" in traces.tree()


async def test_a_retry_says_which_attempt_it_is(world_dsn: str, traces: Traces) -> None:
    failures = iter([True])

    def fails_once(request: ModelRequest) -> Any:
        if next(failures, False):
            raise LookupError
        return obedient(request)

    async with traced(world_dsn, traces, rules=fails_once) as moorline:
        with pytest.raises(AgentError):
            await say(moorline, "hello", "m1")
        await say(moorline, "hello", "m1")
        await say(moorline, "hello", "m1")
    first, second, third = traces.attributes("turn")
    assert (first["moorline.turn.attempt"], second["moorline.turn.attempt"]) == (1, 2)
    assert (third["moorline.turn.replayed"], third["moorline.turn.number"]) == (True, 1)
    assert "moorline.turn.attempt" not in third


async def test_a_crashed_turn_is_recovered_inside_the_call_that_waited_for_it(
    world_dsn: str, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    connection = await asyncpg.connect(world_dsn)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        await crashed(stack, world_dsn, connection, "book table", "m1")
        async with traced(world_dsn, traces) as moorline:
            await say(moorline, "next", "m2")
    assert (
        traces.tree()
        == """\
turn
  begin
  turn
    invoke_agent desk
      execute_tool book
      chat gpt-4.1-mini
    commit
  begin
  invoke_agent desk
    chat gpt-4.1-mini
  commit"""
    )
    own, recovered = traces.attributes("turn")
    assert (recovered["moorline.turn.recovered"], recovered["moorline.turn.attempt"]) == (True, 2)
    assert "moorline.turn.recovered" not in own


async def test_of_merged_messages_one_call_runs_the_turn_and_the_others_get_its_reply(
    world_dsn: str, traces: Traces
) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "hello")
    async with traced(world_dsn, traces, rules=stall) as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m0"))
        await stall.reached.wait()
        burst = [asyncio.create_task(say(moorline, "more", f"m{n}", on_busy="merge")) for n in (1, 2)]
        await in_queue(world_dsn, 2)
        stall.go_on.set()
        await asyncio.gather(running, *burst)
    _, *merged = traces.attributes("turn")
    (ran,) = (span for span in merged if "moorline.turn.messages" in span)
    (waited,) = (span for span in merged if "moorline.turn.messages" not in span)
    assert ran["moorline.turn.messages"] == 2
    assert (waited["moorline.turn.replayed"], waited["moorline.turn.number"]) == (True, 2)


async def test_a_grouped_statement_is_each_turns_own_wait_with_the_groups_size(world_dsn: str, traces: Traces) -> None:
    async with traced(world_dsn, traces) as moorline:
        await say(moorline, "hello", "m0", device="first")
        with traces.tracer.start_as_current_span("both"):
            await asyncio.gather(*(say(moorline, "hello", "m1", device=f"d{n}") for n in range(3)))
    sizes = [begin.get("db.operation.batch.size") for begin in traces.attributes("begin")]
    assert sizes[0] is None
    assert 2 in sizes[1:] or 3 in sizes[1:]
    assert len(traces.named("begin")) == 4
    turns = {span.context.span_id for span in traces.named("turn") if span.context}
    assert all(span.parent is not None and span.parent.span_id in turns for span in traces.named("begin"))


async def test_what_a_tool_does_is_inside_its_span(world_dsn: str, traces: Traces) -> None:
    class Traced(World):
        def _check(self, what: str) -> None:  # noqa: ARG002 - as the world's
            with traces.tracer.start_as_current_span("POST https://partner.test"):
                pass

    async with traced(world_dsn, traces, world=Traced()) as moorline:
        await say(moorline, "ring bell", "m1")
    (tool,), (request,) = traces.named("execute_tool ring"), traces.named("POST https://partner.test")
    assert request.parent == tool.context


async def test_what_runs_beside_a_long_turn_is_no_part_of_its_trace(
    world_dsn: str, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 0.05)
    monkeypatch.setattr(stops, "POLL", 0.05)
    stall = Stall()
    async with traced(world_dsn, traces, rules=stall) as moorline:
        running = asyncio.create_task(say(moorline, "hello", "m1"))
        await stall.reached.wait()
        await asyncio.sleep(0.5)
        stall.go_on.set()
        await running
    assert [span.name for span in traces.spans] == [
        *("turn", "begin", "invoke_agent desk", "chat gpt-4.1-mini", "commit")
    ]


async def test_nothing_is_recorded_if_the_callers_trace_is_not(world_dsn: str, traces: Traces) -> None:
    unsampled = TracerProvider(sampler=ALWAYS_OFF).get_tracer("caller")
    async with traced(world_dsn, traces) as moorline:
        with unsampled.start_as_current_span("POST /webhook"):
            await say(moorline, "book table", "m1")
    assert traces.tree() == ""


async def test_a_read_outside_turns_belongs_to_its_callers_trace(world_dsn: str, traces: Traces) -> None:
    async with traced(world_dsn, traces) as moorline:
        await moorline.session("d1")
        with traces.tracer.start_as_current_span("GET /session"):
            await moorline.session("d1")
    assert traces.tree() == "GET /session\n  get_session"


async def test_without_an_sdk_turns_run_as_ever(world_dsn: str, traces: Traces) -> None:
    moorline = traced(world_dsn, traces)
    moorline._tracing = Tracing()
    async with moorline:
        assert await say(moorline, "book table", "m1") == "1: table"
        assert not trace.get_current_span().get_span_context().is_valid
