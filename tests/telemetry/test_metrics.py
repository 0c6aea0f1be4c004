"""Metrics count what happened, once each, under a bounded number of labels that name nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from moorline import Agent, Moorline, Pass, Refuse, Settings, ToolContext, execution
from moorline.errors import AgentError, ConfigurationError, StoreUnavailable
from moorline.telemetry import Metrics, MetricsApp, TelemetrySettings
from moorline.telemetry.labels import MOST, Names
from moorline_agents.checks import Check, Verdict
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client
from tests.turns.runtimes import Stall, World, crashed, execute, in_queue, obedient, say

from .app import counted
from .scrapes import Scrape


class Measured:
    """A runtime with metrics of its own."""

    def __init__(self, moorline: Moorline, metrics: Metrics, app: MetricsApp) -> None:
        self.moorline, self.metrics, self.app = moorline, metrics, app

    async def scrape(self) -> Scrape:
        """After all that was told has been seen."""
        assert self.moorline._opened is not None
        (watch,) = self.moorline._opened.observers._watches
        async with asyncio.timeout(30):
            while watch._events:  # noqa: ASYNC110 - it has nothing to wait for
                await asyncio.sleep(0.005)
        _, page = await self.app.page()
        return Scrape(page.decode())


@asynccontextmanager
async def measured(
    dsn: str, rules: Rules = counted, *, world: World | None = None, checks: Sequence[Check] = (), **settings: Any
) -> AsyncIterator[Measured]:
    metrics = Metrics(CollectorRegistry())
    tools = (world or World()).tools()
    desk = Agent(name="desk", description="does it", instructions="desk", tools=tools, input_checks=checks)
    made = Moorline(
        Settings(database_url=dsn, **settings),
        agents=[desk],
        client=lambda: rule_client(rules),
        observers=[metrics],
    )
    async with made as moorline:
        yield Measured(moorline, metrics, MetricsApp(moorline, metrics))


async def test_a_turn_is_counted_with_what_it_asked_and_did(world_dsn: str) -> None:
    world = World()
    world.refused.add("moon")
    async with measured(world_dsn, world=world) as here:
        await say(here.moorline, "book table", "m1")
        await say(here.moorline, "ring moon bell", "m2")
        await say(here.moorline, "book table", "m1")
        seen = await here.scrape()
    assert seen.of("turns_total", agent="desk", outcome="finished") == 2
    assert seen.of("turns_total", agent="desk", outcome="replayed") == 1
    assert (seen["turn_attempts_total"], seen["turn_wait_seconds_count"]) == (2, 2)
    assert seen.of("turn_seconds_count", agent="desk") == 2
    assert seen.of("model_seconds_count", model="gpt-4.1-mini") == 4
    assert 0 < seen["model_seconds_sum"] < seen["turn_seconds_sum"]
    assert seen["first_text_seconds_count"] == 2
    assert seen.of("tokens_total", agent="desk", model="gpt-4.1-mini", kind="input") == 4 * 7
    assert seen.of("tokens_total", agent="desk", model="gpt-4.1-mini", kind="output") == 4 * 5
    assert seen.of("tool_seconds_count", agent="desk", tool="ring") == 2
    assert seen.of("tool_refusals_total", tool="ring") == 1
    assert seen["errors_total"] == 0


async def test_what_a_check_refuses_is_counted(world_dsn: str) -> None:
    async def polite(text: str, context: ToolContext) -> Verdict:
        return Refuse("No.") if text == "rude" else Pass()

    async with measured(world_dsn, checks=[polite]) as here:
        for text in ("rude", "hello", "rude"):
            await say(here.moorline, text)
        seen = await here.scrape()
    assert seen.of("check_refusals_total", agent="desk", check="polite", where="input") == 2


async def test_what_failed_is_counted_by_kind(world_dsn: str) -> None:
    failures = iter([True])

    def fails_once(request: ModelRequest) -> Any:
        if next(failures, False):
            raise LookupError
        return obedient(request)

    async with measured(world_dsn, fails_once) as here:
        with pytest.raises(AgentError):
            await say(here.moorline, "hello", "m1")
        assert (await here.scrape())["messages_waiting"] == 0  # until it is delivered again
        await say(here.moorline, "hello", "m1")
        seen = await here.scrape()
    assert seen.of("errors_total", kind="AgentError") == 1
    assert seen.of("turns_total", outcome="failed") == 1
    assert seen.of("turns_total", outcome="finished") == 1
    assert seen["turn_attempts_total"] == 2
    assert seen.of("model_errors_total", model="gpt-4.1-mini", kind="LookupError") == 1


async def test_a_recovered_turn_is_counted_as_such(world_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "HEARTBEAT", 3600)
    connection = await asyncpg.connect(world_dsn)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        await crashed(stack, world_dsn, connection, "book table", "m1")
        async with measured(world_dsn) as here:
            await here.moorline.recover()
            seen = await here.scrape()
    assert (seen["turns_recovered_total"], seen.of("turns_total", outcome="finished")) == (1, 1)
    assert seen["turn_wait_seconds_count"] == 0


async def test_what_the_database_holds_is_shown(world_dsn: str) -> None:
    stall = Stall(lambda request: request.messages[-1]["content"] == "wait")
    async with measured(world_dsn, stall) as here:
        for device in ("d1", "d2", "d3"):
            await say(here.moorline, "hello", "m1", device)
        await execute(
            world_dsn,
            "UPDATE conversation_states SET locked_at = locked_at - interval '10 minutes' WHERE device_id = 'd2'",
        )
        await execute(
            world_dsn,
            "UPDATE conversation_states SET session_ttl = 1, locked_at = now() - interval '1 hour',"
            " last_active_at = now() - interval '1 hour' WHERE device_id = 'd3'",
        )
        running = asyncio.create_task(say(here.moorline, "wait", "m2"))
        await stall.reached.wait()
        waiting = asyncio.create_task(say(here.moorline, "more", "m3"))
        await in_queue(world_dsn, 1)
        seen = await here.scrape()
        stall.go_on.set()
        await asyncio.gather(running, waiting)
    assert seen["database_up"] == 1
    assert seen.of("sessions", agent="desk") == 2
    assert seen.of("session_age_seconds_bucket", le="60") == 1
    assert seen.of("session_age_seconds_bucket", le="1800") == 2
    assert seen.of("session_age_seconds_bucket", le="+Inf") == seen["session_age_seconds_gcount"] == 2
    assert 600 <= seen["session_age_seconds_gsum"] < 660
    assert (seen["sessions_expired"], seen["messages_waiting"]) == (1, 1)
    assert 0 < seen["message_wait_seconds"] < 60
    assert seen.of("pool_connections", state="limit") == 5
    assert seen.of("pool_connections", state="idle") >= 1


async def test_cleanups_and_failed_session_operations_are_counted(world_dsn: str) -> None:
    async with measured(world_dsn) as here:
        await say(here.moorline, "hello", "m1")
        await execute(
            world_dsn, "UPDATE conversation_states SET session_ttl = 1, locked_at = '2020-01-01', last_active_at = NULL"
        )
        saver = here.moorline._backend.saver
        assert await saver.cleanup_expired_sessions() == 1
        await execute(world_dsn, "ALTER TABLE conversation_states RENAME TO gone")
        for _ in range(2):
            with pytest.raises(Exception, match="conversation_states"):
                await here.moorline.session("d1")
        with pytest.raises(Exception, match="conversation_states"):
            await saver.clear_session_lock("d1")
        seen = await here.scrape()
    assert (seen["cleanups_total"], seen["sessions_cleaned_up_total"]) == (1, 1)
    assert seen.of("session_seconds_count", agent="desk", why="expired") == 1
    assert seen.of("session_seconds_sum", agent="desk", why="expired") == pytest.approx(1)
    assert seen.of("session_operations_failed_total", operation="retrieval") == 2
    assert seen.of("session_operations_failed_total", operation="clearing") == 1


async def test_a_database_that_does_not_answer_hides_only_what_it_holds(world_dsn: str) -> None:
    async with measured(world_dsn) as here:
        await say(here.moorline, "hello", "m1")
        connection = await asyncpg.connect(world_dsn)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE conversation_states IN ACCESS EXCLUSIVE MODE")
                async with asyncio.timeout(4):
                    seen = await here.scrape()
        finally:
            await connection.close()
    assert seen["database_up"] == 0
    assert seen["turns_total"] == 1
    assert "moorline_sessions" not in seen.names


async def test_many_scrapes_ask_the_database_once(world_dsn: str) -> None:
    async with measured(world_dsn) as here:
        await say(here.moorline, "hello", "m1")
        first, *others = await asyncio.gather(*(here.scrape() for _ in range(20)))
        await say(here.moorline, "hello", "m1", "d2")
        assert (await here.scrape())["sessions"] == first["sessions"] == 1
        assert all(other["sessions"] == 1 for other in others)


async def test_no_label_comes_from_a_person_and_few_from_a_model(world_dsn: str) -> None:
    made_up = iter(range(1000))

    def makes_up(request: ModelRequest) -> ModelReply:
        if request.messages[-1]["role"] == "tool":
            return ModelReply(text="no")
        return ModelReply(calls=tuple(Call(name=f"tool_{next(made_up)}", arguments={}) for _ in range(5)))

    async with measured(world_dsn, makes_up) as here:
        for number in range(3):
            await say(here.moorline, "a secret", f"secret-message-{number}", "+4912345")
        seen = await here.scrape()
    assert seen.of("tool_seconds_count", tool="unknown") == 15
    assert {value for name, value in seen.labels if name == "tool"} == {"unknown"}
    assert "secret" not in seen.page
    assert "4912345" not in seen.page


def test_further_names_are_counted_together() -> None:
    names = Names()
    labels = {names.label(f"model-{number}") for number in range(1000)}
    assert len(labels) == MOST + 1
    assert "other" in labels
    assert names.label("model-0") == "model-0"
    assert Names().label('evil"} 1\nmoorline_turns_total 7') == "other"


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("::ffff:127.0.0.1", {}, 200),
        ("10.1.2.3", {}, 403),
        ("testclient", {}, 403),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
        ("127.0.0.1", {"via": "1.1 proxy"}, 403),
    ],
)
async def test_metrics_are_for_this_machine_unless_a_setting_says_otherwise(
    world_dsn: str, client: str, headers: dict[str, str], status: int
) -> None:
    async with measured(world_dsn) as here:
        assert await _status(here.app, client, headers) == status
        far = MetricsApp(here.moorline, here.metrics, settings=TelemetrySettings(metrics_clients=("10.0.0.0/8",)))
        assert await _status(far, "10.1.2.3", {}) == 200
        assert await _status(far, "127.0.0.1", {}) == 403


async def test_a_route_of_a_team_s_own_app_shows_them(world_dsn: str) -> None:
    async with measured(world_dsn) as here:
        app = FastAPI()
        app.routes.append(Route("/metrics", here.app))
        async with AsyncClient(transport=ASGITransport(app), base_url="http://here") as client:
            answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert "moorline_database_up 1.0" in answer.text


def test_a_setting_that_is_no_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORLINE_METRICS_CLIENTS", "10.0.0.0/8, here")
    with pytest.raises(ConfigurationError, match="MOORLINE_METRICS_CLIENTS: must be IP addresses or networks"):
        TelemetrySettings()
    monkeypatch.setenv("MOORLINE_METRICS_CLIENTS", "10.0.0.0/8, ::1")
    assert TelemetrySettings().metrics_clients == ("10.0.0.0/8", "::1")


async def test_statistics_of_a_store_that_is_gone_fail_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", on_store_down="stateless")
    async with Moorline(settings, agents=[Agent(name="desk", description="d", instructions="i")]) as moorline:
        with pytest.raises(StoreUnavailable):
            await moorline.stats()


async def _status(app: MetricsApp, client: str, headers: dict[str, str]) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": "GET", "client": (client, 1), "headers": raw}, receive, send)
    return int(sent[0]["status"])
