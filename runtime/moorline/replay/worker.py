"""One turn of a replay in its own process: reads a job as JSON from standard input and prints what was observed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from moorline.replay.conversations import Conversation
from moorline.replay.player import as_json, opener, play_turn
from moorline.replay.recorded import RecordedConversation
from moorline.settings import Settings


async def _work(job: dict[str, Any]) -> str:
    recorded = RecordedConversation(Conversation.model_validate(job["conversation"]))
    async with opener(Settings(**job["settings"]))(recorded) as moorline:
        return as_json(await play_turn(moorline, recorded, job["number"], job["device_id"]))


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(_work(json.load(sys.stdin))))
