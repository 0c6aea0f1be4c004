"""A runtime on a fresh database, with a model that answers by rules."""

from collections.abc import Callable

import pytest

from moorline import Moorline, Settings
from moorline.manager import AgentProtocol
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest, Rules, rule_client

Open = Callable[..., Moorline]


def counting(request: ModelRequest) -> ModelReply:
    """Routes by the first word of a message, hands over on "hand over to NAME" and ends the session on "bye"; the desk
    also hands over what begins with another agent's name. Otherwise it says which agent it is, how many messages of the
    person it was shown, and the last of them."""
    said = request.said
    words = said[-1].split()
    if "route" in request.functions:
        return ModelReply(calls=(Call(name="route", arguments={"agent": words[0]}),))
    answered = request.messages[-1]["role"] == "tool"
    if words[:3] == ["hand", "over", "to"] and words[3] != request.system:
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": words[3], "reason": "asked"}),))
    hand_over = request.functions.get("hand_over", {}).get("parameters", {}).get("properties", {})
    others = hand_over.get("agent", {}).get("enum", ())
    if request.system == "desk" and words[0] in others and not answered:
        return ModelReply(calls=(Call(name="hand_over", arguments={"agent": words[0], "reason": ""}),))
    if words == ["bye"] and not answered:
        return ModelReply(calls=(Call(name="end_session"),))
    return ModelReply(text=f"{request.system} {len(said)}: {said[-1]}")


def agent(name: str, *, keeps_session: bool = True, session_ttl: int | None = None) -> Agent:
    return Agent(
        name=name,
        description=f"for messages that begin with {name}",
        instructions=name,
        keeps_session=keeps_session,
        session_ttl=session_ttl,
    )


@pytest.fixture
def settings(dsn: str) -> Settings:
    return Settings(database_url=dsn)


@pytest.fixture
def model() -> Script:
    """The model of the test's runtimes; its `requests` hold everything it was shown."""
    return Script(rules=counting)


@pytest.fixture
def open_moorline(settings: Settings, model: Script) -> Open:
    """Makes runtimes on the test's database, with the agents `hair`, `nails` and the session-less `desk`."""

    def make(
        *, agents: list[AgentProtocol] | None = None, rules: Rules | None = None, settings: Settings = settings
    ) -> Moorline:
        ours: list[AgentProtocol] = agents or [agent("hair"), agent("nails"), agent("desk", keeps_session=False)]
        return Moorline(settings, agents=ours, client=lambda: rule_client(rules or model))

    return make
