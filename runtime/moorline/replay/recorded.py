"""A recorded conversation as agents and a model: tools give their recorded results, the model its recorded answers.

Everything between them is the real thing: the graph, the routing, the lock and the checkpointer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, create_model

from moorline.replay.conversations import Conversation, RecordedCall, RecordedTurn
from moorline_agents.agent import Agent
from moorline_agents.calls import MOST_CALLS
from moorline_agents.control import HAND_OVER, ROUTE
from moorline_agents.messages import Message
from moorline_agents.tools import Tool, ToolContext, ToolRefused
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REASON = "recorded"
"""Why an agent hands over."""

_ASKED_AS = "You are the agent "


class RecordedConversation:
    """The recorded model and agents of a conversation. One turn is played at a time: the one last passed to `cue`."""

    def __init__(self, conversation: Conversation) -> None:
        self._turns = conversation.recorded()
        self._turn = self._turns[0]
        self.shown: dict[str, list[Message]] = {}
        """The messages of each agent's first request in this turn, without the system message."""
        self._made: set[int] = set()
        """Which of this turn's calls were made."""
        self.agents = [self._agent(name) for name in dict.fromkeys(turn.agent for turn in self._turns)]

    def cue(self, number: int) -> RecordedTurn:
        """Makes turn `number` (from 0) the one that is played next."""
        self._turn, self.shown, self._made = self._turns[number], {}, set()
        return self._turn

    def client(self) -> AsyncOpenAI:
        """A client of the recorded model."""
        return rule_client(self._answer)

    def _answer(self, request: ModelRequest) -> ModelReply:
        if ROUTE in request.functions:
            return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": self._turn.agent}),))
        agent = request.system.partition("\n")[0].removeprefix(_ASKED_AS)
        messages = request.messages[1:]
        self.shown.setdefault(agent, list(messages))
        if agent != self._turn.agent:
            return ModelReply(calls=(handing_over(self._turn),))
        results = takewhile(lambda message: message["role"] != "user", reversed(messages))
        made = sum(message["role"] == "tool" for message in results)
        if made < len(self._turn.calls):
            return ModelReply(calls=answers_of(self._turn)[made // MOST_CALLS])
        return ModelReply(text=self._turn.reply)

    def _agent(self, name: str) -> Agent:
        calls = [call for turn in self._turns if turn.agent == name for call in turn.calls]
        return Agent(
            name=name,
            description=f"the service {name}",
            instructions=f"{_ASKED_AS}{name}",
            tools=[
                self._tool(tool, [call for call in calls if call.tool == tool])
                for tool in dict.fromkeys(call.tool for call in calls)
            ],
        )

    def _tool(self, name: str, calls: Sequence[RecordedCall]) -> Tool:
        async def give_recorded(arguments: BaseModel, context: ToolContext) -> Any:  # noqa: ARG001  # a tool's shape
            given = arguments.model_dump(exclude_unset=True, by_alias=True)
            fitting = [
                place for place, made in enumerate(self._turn.calls) if made.tool == name and made.parameters == given
            ]
            if not fitting:
                raise ToolRefused("Nothing was recorded for this call.")
            # The same call may have had another result each time; a turn that runs again gets the last one again.
            place = next((place for place in fitting if place not in self._made), fitting[-1])
            self._made.add(place)
            return result_of(self._turn.calls[place])

        # A parameter may have a name that no field can have, so that it is the field's alias.
        parameters = dict.fromkeys(parameter for made in calls for parameter in made.parameters)
        fields: dict[str, Any] = {
            f"field_{number}": (Any, Field(default=None, alias=parameter))
            for number, parameter in enumerate(parameters)
        }
        return Tool(
            name=name,
            description=f"the recorded {name}",
            arguments=create_model("Recorded", **fields),
            function=give_recorded,
            effect="none",
            idempotent=True,
        )


def handing_over(turn: RecordedTurn) -> Call:
    """The answer of an agent to a message that is for another agent."""
    return Call(name=HAND_OVER, arguments=_text({"agent": turn.agent, "reason": REASON}))


def answers_of(turn: RecordedTurn) -> list[tuple[Call, ...]]:
    """The answers that the agent of a turn gives before the reply: its calls, as many in each as one may make."""
    calls = [Call(name=made.tool, arguments=_text(made.parameters)) for made in turn.calls]
    return [tuple(calls[begin : begin + MOST_CALLS]) for begin in range(0, len(calls), MOST_CALLS)]


def _text(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def result_of(made: RecordedCall) -> Any:
    """The result of a recorded call; for some nothing was recorded."""
    return made.results if made.results is not None else []
