"""The `Moorline` of these tests' servers: the agent `desk` does what it is told, and each answer costs tokens."""

from dataclasses import replace

from moorline import Agent, Moorline
from moorline_agents.messages import Usage
from moorline_agents.transport import ModelReply, ModelRequest, rule_client
from tests.turns.runtimes import World, obedient


def counted(request: ModelRequest) -> ModelReply:
    return replace(obedient(request), usage=Usage(7, 5))


world = World()
world.refused.add("moon")
world.failing.add("sun")
desk = Agent(name="desk", description="does it", instructions="desk", tools=world.tools())
moorline = Moorline(agents=[desk], client=lambda: rule_client(counted))
