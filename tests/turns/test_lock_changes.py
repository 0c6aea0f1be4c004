"""The turn's record says how it changed the lock, and why; a turn that keeps its lock records nothing."""

from __future__ import annotations

from pydantic import BaseModel

from moorline import Moorline, Settings, ToolContext, tool
from moorline.testing import Call, ModelReply, Script, rule_client
from moorline.transcript_text import as_json, as_markdown
from moorline_agents.agent import Agent

from .runtimes import execute, say


class Nothing(BaseModel):
    """No arguments."""


async def test_taken_handed_over_and_released_are_recorded_with_the_turn_and_why(dsn: str) -> None:
    hair = Agent(name="hair", description="hair", instructions="hair", session_ttl=60)
    nails = Agent(name="nails", description="nails", instructions="nails")
    desk = Agent(name="desk", description="desk", instructions="desk", keeps_session=False)
    to_nails = {"agent": "nails", "reason": "wants nails", "note": "in a hurry"}
    script = Script(
        ModelReply(calls=(Call(name="route", arguments={"agent": "hair"}),)),
        "hello",
        "still here",
        ModelReply(calls=(Call(name="hand_over", arguments=to_nails),)),
        ModelReply(calls=(Call(name="end_session"),)),
        "bye",
        ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),)),
        ModelReply(calls=(Call(name="hand_over", arguments={"agent": "hair", "reason": "wants hair"}),)),
        "hello again",
    )
    async with Moorline(
        Settings(database_url=dsn), agents=[hair, nails, desk], client=lambda: rule_client(script)
    ) as moorline:
        for text in ("hair", "more", "nails", "a question", "start over"):
            await say(moorline, text)
        transcript = await moorline.transcript("d1")
    taken = {"lock": "hair", "why": "taken", "ttl": 60}
    handed_over = {"lock": None, "why": "handed_over", "by": "hair", "reason": "wants nails", "note": "in a hurry"}
    assert [list(entry.changes) for entry in transcript] == [
        [taken],
        [],
        [
            handed_over,
            {"lock": "nails", "why": "taken"},
            {"lock": None, "why": "released", "by": "nails"},
        ],
        [{"lock": None, "why": "handed_over", "by": "desk", "reason": "wants hair"}, taken],
        [{"lock": None, "why": "started_over"}],
    ]
    kept = await execute(dsn, "SELECT changes FROM conversation_turns WHERE turn_no = 2")
    assert kept[0]["changes"] is None
    told = "\n".join(as_markdown("d1", transcript))
    assert "Session: taken by hair (ttl 60)" in told
    assert "handed over (by hair, reason wants nails, note in a hurry); taken by nails; released (by nails)" in told
    assert '"reason": "wants nails"' in as_json("d1", transcript)


async def test_a_hand_over_by_an_agent_without_sessions_leaves_the_lock_to_whoever_holds_it(dsn: str) -> None:
    @tool()
    async def reserve(arguments: Nothing, context: ToolContext) -> str:
        """Gives the session to hair."""
        await moorline.set_session_lock(context.device_id, "hair")
        return "reserved"

    hair = Agent(name="hair", description="hair", instructions="hair")
    desk = Agent(name="desk", description="desk", instructions="desk", keeps_session=False, tools=[reserve])
    info = Agent(name="info", description="info", instructions="info", keeps_session=False)
    to_info = {"agent": "info", "reason": "asks", "note": ""}
    script = Script(
        ModelReply(calls=(Call(name="route", arguments={"agent": "desk"}),)),
        ModelReply(calls=(Call(name="reserve"), Call(name="hand_over", arguments=to_info))),
        "hello",
    )
    async with Moorline(
        Settings(database_url=dsn), agents=[hair, desk, info], client=lambda: rule_client(script)
    ) as moorline:
        assert await say(moorline, "hi") == "hello"
        assert await moorline.get_session_lock("d1") == "hair"
        [entry] = await moorline.transcript("d1")
    assert [change["lock"] for change in entry.changes] == ["hair", "hair"]
