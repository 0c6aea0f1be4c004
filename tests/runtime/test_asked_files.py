"""Files and questions: a tool that asked has its files when it is answered, and a message with files is no answer."""

import json

from moorline import Image, Moorline, Resume, Settings, ToolContext, tool
from moorline.testing import Script
from moorline_agents.agent import Agent
from moorline_agents.transport import Call, ModelReply, ModelRequest, Reply, rule_client
from tests.pictures import png
from tests.runtime.test_files import HERE, PHOTO, Nothing, parts_of


@tool()
async def file_away(arguments: Nothing, context: ToolContext) -> list[str]:
    """Files what came, if the person wants it."""
    said = await context.ask("Shall I file it?", options=("yes", "no"))
    return [said, *(file.name for file in context.files)]


def filing(request: ModelRequest) -> Reply:
    """Calls the tool once; then says what came of it and what was said since."""
    last = request.messages[-1]
    if last["role"] == "tool":
        return ModelReply(text=str(last["content"]))
    if len(request.said) == 1:
        return ModelReply(calls=(Call(name="file_away"),))
    return ModelReply(text=json.dumps(parts_of(last["content"])))


def opened(settings: Settings) -> Moorline:
    desk = Agent(name="desk", description="files", instructions="File.", tools=[file_away])
    return Moorline(settings, agents=[desk], client=lambda: rule_client(Script(rules=filing)))


async def test_a_tool_that_asked_has_its_files_when_it_is_answered(settings: Settings) -> None:
    for device, typed in (("d1", False), ("d2", True)):
        async with opened(settings) as m:
            asked = await m.run(["This", PHOTO], {"device_id": device})
            assert asked.interrupt is not None
        async with opened(settings) as m:
            answer = "yes" if typed else Resume(interrupt_id=asked.interrupt.id, value="yes")
            assert json.loads(await m.run(answer, {"device_id": device})) == ["yes", "photo.png"]


async def test_a_message_with_files_is_no_answer(settings: Settings) -> None:
    async with opened(settings) as m:
        asked = await m.run(["This", PHOTO], HERE)
        assert asked.interrupt is not None
        reply = await m.run(["yes", Image(png(1), name="better.png")], HERE)
        assert json.loads(reply) == ["yes", "data:image/png;base64,"]
        assert await m.pending("d1") is None
