"""How much later than with the bare OpenAI client a person sees the first text. Both ask the same scripted server, a
process of its own that speaks the protocol of chat completions: it thinks for 20 ms, sends its first token, and then
one more every 5 ms. The token says when it was sent, on the machine's clock. `stream_manager`, on the default runtime
and its shipped agents, answers turns that go straight to the active agent; the bare client streams one completion of
the same message alone. They ask by turns, in one process, one call at a time: 10 devices take 10 turns each.

Counted are the time from the model's first token to the first text, and the time from the call to the first text, in
which Moorline also begins the turn in the database and runs its graph up to the model. A run's figure is the difference
of the two medians."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median

from tests.bench.conversation import QUESTION
from tests.bench.figures import Figure
from tests.bench.lab import Lab

MODEL = "scripted"
THINKS, EVERY = 0.02, 0.005
"""Seconds to the first token, and from one to the next."""
DEVICES, TURNS = 10, 10


@contextmanager
def scripted() -> Iterator[str]:
    """The base URL of the model's server, while the block runs."""
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def _serve(told: Connection) -> None:
    from moorline.testing import Call, ModelReply, ModelRequest, RawReply, serve

    async def rules(request: ModelRequest) -> ModelReply | RawReply:
        if "route" in request.functions:
            return ModelReply(calls=(Call(name="route", arguments={"agent": "scheduling"}),))
        await asyncio.sleep(THINKS)
        texts = (f"{time.monotonic()} ", "Yes, ", "two ", "are ", "left.")
        chunks: list[dict[str, object]] = [
            {"delta": {"role": "assistant", "content": text}, "finish_reason": None} for text in texts
        ]
        chunks.append({"delta": {}, "finish_reason": "stop"})
        pieces = (_event({"index": 0, **chunk}) for chunk in chunks)
        headers = {"content-type": "text/event-stream"}
        return RawReply(headers=headers, pieces=(*pieces, b"data: [DONE]\n\n"), pause=EVERY)

    async def serving() -> None:
        async with serve(rules) as url:
            told.send(url)
            await asyncio.to_thread(told.recv)

    asyncio.run(serving())


def _event(choice: dict[str, object]) -> bytes:
    chunk = {"id": MODEL, "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Times:
    """The seconds to the first text, of one way to ask."""

    def __init__(self) -> None:
        self.from_token: list[float] = []
        self.from_call: list[float] = []
        self._began = 0.0
        self._seen = True

    def call(self) -> None:
        """One more call begins."""
        self._began, self._seen = time.monotonic(), False

    def text(self, text: str) -> None:
        """A text has arrived; after the first one of a call, nothing happens."""
        now = time.monotonic()
        if not self._seen:
            self._seen = True
            self.from_token.append(now - float(text))
            self.from_call.append(now - self._began)


async def first_texts(*, dsn: str, server: str) -> dict[str, float]:
    """The medians of both ways to ask, in milliseconds."""
    environment = {"DATABASE_URL": dsn, "OPENAI_BASE_URL": server, "OPENAI_API_KEY": "none", "OPENAI_MODEL": MODEL}
    os.environ.update(environment, MOORLINE_TUNE_GC="true")
    from openai import AsyncOpenAI

    from moorline import TextDelta, TurnFinished, stream_manager

    async def managed(device: str, turn: int, times: Times) -> None:
        times.call()
        async for event in stream_manager(QUESTION, {"device_id": device, "message_id": f"m{turn}"}):
            if isinstance(event, TextDelta):
                times.text(event.text)
        if not isinstance(event, TurnFinished) or event.reply.agent != "scheduling":
            raise ValueError(f"a turn ended with {event}")

    async def bare(client: AsyncOpenAI, times: Times) -> None:
        times.call()
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    times.text(choice.delta.content)

    ours, theirs = Times(), Times()
    names = [f"device-{number}" for number in range(DEVICES)]
    async with AsyncOpenAI() as client:
        for name in names:
            await managed(name, 1, Times())
            await bare(client, Times())
        for turn in range(2, 2 + TURNS):
            for name in names:
                await managed(name, turn, ours)
                await bare(client, theirs)
    return {
        f"{whose} {name}": 1000 * median(getattr(times, name))
        for whose, times in (("moorline", ours), ("bare", theirs))
        for name in ("from_token", "from_call")
    }


def measure(lab: Lab) -> list[Figure]:
    """Milliseconds."""

    def run() -> dict[str, float]:
        with scripted() as server, lab.database() as dsn:
            result: dict[str, float] = lab.call(first_texts, dsn=dsn, server=server)
            return result

    results = lab.alternate({"both": run})["both"]
    return [
        Figure(
            path="run",
            what=f"{title} to the first text of `stream_manager`: beyond the bare client",
            values=tuple(run[f"moorline {name}"] - run[f"bare {name}"] for run in results),
            unit=" ms",
            at_most=5.0,
            seen=" against ".join(
                f"{median(run[f'{whose} {name}'] for run in results):.2f} ms" for whose in ("moorline", "bare")
            ),
        )
        for name, title in (("from_token", "from the model's first token"), ("from_call", "from the call"))
    ]
