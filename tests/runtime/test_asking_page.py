"""docs/asking.md is true: its example asks and is answered as the page says."""

import re
from pathlib import Path
from typing import Any

from moorline import Moorline, Resume, Settings
from moorline.testing import Call, ModelReply, Script, rule_client

PAGE = Path(__file__).parents[2] / "docs" / "asking.md"
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
CONTEXT = {"device_id": "d1"}


async def test_the_example_of_the_page_asks_and_is_answered(dsn: str) -> None:
    page: dict[str, Any] = {"__name__": "page"}
    exec(EXAMPLE, page)  # noqa: S102 - ours
    script = Script(
        ModelReply(calls=(Call(name="seat", arguments={"dish": "soup"}),)),
        ModelReply(calls=(Call(name="answer", arguments={"answers": True, "more": False, "answer": {"count": 4}}),)),
        "Here you are.",
        ModelReply(calls=(Call(name="order", arguments={"dish": "soup"}),)),
        "It comes.",
    )
    async with Moorline(
        Settings(database_url=dsn), agents=[page["waiter"]], client=lambda: rule_client(script)
    ) as moorline:
        await moorline.run("a table please", CONTEXT)
        assert await moorline.run("four of us", CONTEXT) == "Window or door? (window / door)"
        assert await moorline.run("Window!", CONTEXT) == "Here you are."
        assert '"guests": 4, "where": "inside", "side": "window"' in str(script.requests[2].messages[-1]["content"])
        asked = await moorline.run("soup", CONTEXT)
        assert asked == "Order soup? (yes / no)"
        assert asked.interrupt is not None
        answer = Resume(interrupt_id=asked.interrupt.id, value="yes", by="Eva")
        assert await moorline.run(answer, CONTEXT) == "It comes."
        assert '"approved_by": "Eva"' in str(script.requests[4].messages[-1]["content"])
