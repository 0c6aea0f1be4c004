"""`python -m moorline.testing` serves a script, or the rehearsal model, to other processes."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moorline.testing.script import Script, error_reply
from moorline.testing.server import serve
from moorline_agents.transport import Call, ModelReply

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from moorline_agents.transport import ModelRequest, Reply, Rules


def _reply_of(line: dict[str, Any]) -> Reply:
    if "status" in line:
        return error_reply(line["status"], code=line.get("code"), retry_after_ms=line.get("retry_after_ms"))
    calls = tuple(Call(name=call["name"], arguments=call["arguments"]) for call in line.get("calls", ()))
    return ModelReply(text=line.get("text"), calls=calls)


def _recorded(rules: Rules, file: Path) -> Rules:
    def record(request: ModelRequest) -> Reply | Awaitable[Reply]:
        shown = {"messages": request.messages, "tools": list(request.functions)}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(shown) + "\n")
        return rules(request)

    return record


def main() -> None:
    """Runs a server until it is killed; its base URL is the first line on standard output."""
    parser = argparse.ArgumentParser(prog="python -m moorline.testing", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument(
        "--replies",
        type=Path,
        help='one reply per line: {"text": ...}, {"calls": [{"name": ..., "arguments": {...}}]} or {"status": 429}; '
        "without it the rehearsal model answers",
    )
    parser.add_argument("--record", type=Path, help="a file that gets a line for each request")
    options = parser.parse_args()
    rules: Rules
    if options.replies is None:
        from moorline_agents.rehearsal import rehearse  # noqa: PLC0415 - the script needs no rehearsal

        rules = rehearse
    else:
        lines = options.replies.read_text(encoding="utf-8").splitlines()
        rules = Script(*(_reply_of(json.loads(line)) for line in lines))
    if options.record is not None:
        rules = _recorded(rules, options.record)
    asyncio.run(_run(rules, options.port))


async def _run(rules: Rules, port: int) -> None:
    async with serve(rules, port=port) as base_url:
        print(base_url, flush=True)  # noqa: T201 - the process that started this waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
