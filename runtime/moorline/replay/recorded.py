"""A recorded conversation as agents and a model: tools give their recorded results, the model its recorded answers.

Everything between them is the real thing: the graph, the routing, the lock and the checkpointer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, create_model

from moorline.replay.conversations import Conversation, RecordedCall, RecordedTurn
from moorline_agents.agent import Agent
from moorline_agents.control import HAND_OVER, ROUTE
from moorline_agents.messages import Message
from moorline_agents.tools import Tool, ToolContext, ToolRefused
from moorline_agents.transport import Call, ModelReply, ModelRequest, rule_client

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_ASKED_AS = "You are the agent "


class RecordedConversation:
    """The recorded model and agents of a conversation. One turn is played at a time: the one last passed to `cue`."""

    def __init__(self, conversation: Conversation) -> None:
        self._turns = conversation.recorded()
        self._turn = self._turns[0]
        self.shown: dict[str, list[Message]] = {}
        """The messages of each agent's first request in this turn, without the system message."""
        services = dict.fromkeys(turn.service for turn in self._turns)
        self.agents = [self._agent(service) for service in services]

    def cue(self, number: int) -> RecordedTurn:
        """Makes turn `number` (from 0) the one that is played next."""
        self._turn, self.shown = self._turns[number], {}
        return self._turn

    def client(self) -> AsyncOpenAI:
        """A client of the recorded model."""
        return rule_client(self._answer)

    def _answer(self, request: ModelRequest) -> ModelReply:
        if ROUTE in request.functions:
            return ModelReply(calls=(Call(name=ROUTE, arguments={"agent": self._turn.service}),))
        agent = request.system.removeprefix(_ASKED_AS)
        messages = request.messages[1:]
        self.shown.setdefault(agent, list(messages))
        if agent != self._turn.service:
            return ModelReply(calls=(handing_over(self._turn),))
        if self._turn.calls and messages[-1]["role"] == "user":
            return ModelReply(calls=calling(self._turn))
        return ModelReply(text=self._turn.reply)

    def _agent(self, service: str) -> Agent:
        made = [call for turn in self._turns if turn.service == service for call in turn.calls]
        return Agent(
            name=service,
            description=f"the service {service}",
            instructions=f"{_ASKED_AS}{service}",
            tools=[
                self._tool(method, [call for call in made if call.method == method])
                for method in dict.fromkeys(call.method for call in made)
            ],
        )

    def _tool(self, method: str, calls: Sequence[RecordedCall]) -> Tool:
        async def give_recorded(arguments: BaseModel, context: ToolContext) -> Any:  # noqa: ARG001  # a tool's shape
            given = arguments.model_dump(exclude_unset=True)
            for made in self._turn.calls:
                if made.method == method and made.parameters == given:
                    return result_of(made)
            raise ToolRefused("Nothing was recorded for this call.")

        fields: dict[str, Any] = {name: (Any, None) for made in calls for name in made.parameters}
        return Tool(
            name=method,
            description=f"the recorded {method}",
            arguments=create_model(method, **fields),
            function=give_recorded,
            effect="none",
            idempotent=True,
        )


def handing_over(turn: RecordedTurn) -> Call:
    """The answer of an agent to a message that is for another agent."""
    return Call(name=HAND_OVER, arguments=_text({"agent": turn.service, "reason": "recorded"}))


def calling(turn: RecordedTurn) -> tuple[Call, ...]:
    """The calls that the agent of a turn makes before it answers."""
    return tuple(Call(name=made.method, arguments=_text(made.parameters)) for made in turn.calls)


def _text(arguments: dict[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def result_of(made: RecordedCall) -> Any:
    """The result of a recorded call; for some nothing was recorded."""
    return made.results if made.results is not None else []
