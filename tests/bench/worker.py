"""The fresh process of one run: calls an asynchronous function and prints its result as a line of JSON.

    python -m tests.bench.worker tests.bench.driving:speed '{"contestant": "moorline", …}'

The event loop is uvloop if that is installed, for every contestant.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def main(function: str, arguments: str) -> None:
    """Runs `module:name` with keyword arguments."""
    module, _, name = function.partition(":")
    measured: Callable[..., Awaitable[Any]] = getattr(import_module(module), name)

    async def run() -> Any:
        return await measured(**json.loads(arguments))

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        result = runner.run(run())
    sys.stdout.write(json.dumps(result) + "\n")


async def meet() -> None:
    """Returns when every process that was started together with this one has come here."""

    def wait() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()

    await asyncio.to_thread(wait)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main(*sys.argv[1:])
