"""An answer hands over and asks; until the question is answered, the other agent may have been renamed or be gone."""

from dataclasses import replace
from typing import Any

import pytest
from langgraph.types import interrupt
from pydantic import BaseModel

from moorline import Resume, ToolContext, tool
from moorline_agents.transport import Call, ModelReply, ModelRequest

from .conftest import Open, agent, counting

CONTEXT = {"device_id": "d1"}


class Nothing(BaseModel):
    pass


@tool()
async def ask(_: Nothing, context: ToolContext) -> dict[str, Any]:
    """Asks."""
    return {"said": interrupt("sure?")}


HAIR = replace(agent("hair"), tools=[ask])


def handing_over(request: ModelRequest) -> ModelReply:
    """The hair agent hands over to the nails agent and asks, in one answer; after that, everybody only talks."""
    results = [message for message in request.messages if message["role"] == "tool"]
    if request.system == "hair" and not results:
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": "nails", "reason": "x"}), Call(name="ask")))
    return counting(request)


@pytest.mark.parametrize(
    ("later", "reply", "handoffs"),
    [
        ([agent("nails")], "nails 1: hair please", ("nails",)),
        ([replace(agent("polish"), aliases=["nails"])], "polish 1: hair please", ("nails",)),
        ([agent("desk")], "hair 1: hair please", ("nails",)),
    ],
    ids=["there", "renamed", "gone"],
)
async def test_the_message_is_answered_whoever_is_still_there(
    open_moorline: Open, later: list[Any], reply: str, handoffs: tuple[str, ...]
) -> None:
    async with open_moorline(agents=[HAIR, agent("nails")], rules=handing_over) as moorline:
        question = (await moorline.run("hair please", CONTEXT)).interrupt
        assert question is not None
    async with open_moorline(agents=[HAIR, *later], rules=handing_over) as moorline:
        answered = await moorline.run(Resume(interrupt_id=question.id, value="yes"), CONTEXT)
        assert (answered, answered.handoffs) == (reply, handoffs)
        assert (await moorline.run("hair again", CONTEXT)).turn_no == 3
