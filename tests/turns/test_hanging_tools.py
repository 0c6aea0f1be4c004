"""A tool that hangs is given up in its time, the model hears of it, and the conversation goes on."""

import asyncio
from typing import Any

import pytest

from moorline import Settings
from moorline.errors import ConfigurationError
from moorline_agents.agent import Agent
from moorline_agents.tools import Effect, Tool, ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest

from .runtimes import Thing, after_tools, execute, runtime, say


def told(request: ModelRequest) -> ModelReply:
    """Calls the tool, and says its result as the model was shown it."""
    if after_tools(request):
        return ModelReply(text=str(request.messages[-1]["content"]))
    if request.messages[-1]["content"] != "act":
        return ModelReply(text="hello")
    return ModelReply(calls=(Call(name="act", arguments={"what": "table"}),))


def hanging(effect: Effect, **definition: Any) -> tuple[Agent, list[str]]:
    done: list[str] = []

    @tool(effect=effect, **definition)
    async def act(thing: Thing, context: ToolContext) -> None:
        """Does it."""
        done.append("begun")
        if effect == "database":
            async with context.transaction() as connection:
                await connection.execute("INSERT INTO bookings VALUES ($1, $2)", context.device_id, thing.what)
                await asyncio.sleep(40)
        await asyncio.sleep(40)

    return Agent(name="desk", description="does it", instructions="desk", tools=[act]), done


@pytest.mark.parametrize("effect", ["none", "database"])
async def test_a_tool_that_hangs_has_changed_nothing_and_the_model_hears_so(dsn: str, effect: Effect) -> None:
    await execute(dsn, "CREATE TABLE bookings (device_id text, what text)")
    agent, _ = hanging(effect, timeout=0.1)
    async with runtime(dsn, told, agent=agent) as moorline:
        reply = await say(moorline, "act")
        assert "did not end within 0.1 s" in reply
        assert '"code": "timed_out"' in reply
        assert await say(moorline, "go on") == "hello"
    assert await execute(dsn, "SELECT FROM bookings") == []


@pytest.mark.parametrize(("idempotent", "advice"), [(False, "Do not call it again"), (True, "can be called again")])
async def test_what_a_tool_did_outside_before_it_hung_is_unknown(dsn: str, idempotent: bool, advice: str) -> None:
    agent, done = hanging("outside", idempotent=idempotent)
    async with runtime(dsn, told, agent=agent, tool_timeout=0.1) as moorline:
        reply = await say(moorline, "act")
        assert "was given up after 0.1 s. It may have happened." in reply
        assert advice in reply
        assert '"code": "outcome_unknown"' in reply
        assert await say(moorline, "go on") == "hello"
    assert done == ["begun"]


async def test_a_time_out_of_the_tools_own_is_no_hanging(dsn: str) -> None:
    @tool()
    async def act(thing: Thing, context: ToolContext) -> str:
        """Does it."""
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(40)
        except TimeoutError:
            return "the other side is slow"
        return "done"

    agent = Agent(name="desk", description="does it", instructions="desk", tools=[act])
    async with runtime(dsn, told, agent=agent) as moorline:
        assert await say(moorline, "act") == '"the other side is slow"'


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_that_could_not_be_kept_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        hanging("none", timeout=seconds)
    with pytest.raises(ConfigurationError, match="MOORLINE_TOOL_TIMEOUT"):
        Settings(database_url="postgresql://localhost/x", tool_timeout=seconds)


def test_a_tool_keeps_the_time_that_it_says_itself() -> None:
    @tool()
    async def act(thing: Thing, context: ToolContext) -> None:
        """Does it."""

    assert isinstance(act, Tool)
    assert (act.within(30).timeout, act.within(5).within(30).timeout) == (30, 5)
