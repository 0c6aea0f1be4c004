"""`ChatModel` and its clients: when they are made, for which event loop, and how long they may take."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from moorline.testing import Script, error_reply, serve
from moorline_agents.messages import Message, Usage
from moorline_agents.model import ChatModel
from moorline_agents.model_errors import ModelError
from moorline_agents.transport import ModelReply, RawReply, rule_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from openai import AsyncOpenAI

    from moorline_agents.transport import ModelRequest

QUESTION: list[Message] = [{"role": "user", "content": "Hello?"}]
PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}]}\n\n'


def client_of(base_url: str) -> Callable[[], AsyncOpenAI]:
    def make() -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(api_key="test", base_url=base_url, max_retries=0)

    return make


@pytest.mark.parametrize(
    "module",
    ["moorline_agents.model", "moorline_agents.transport", "moorline_agents.rehearsal", "moorline.testing"],
)
def test_importing_the_model_layer_does_not_import_openai(module: str) -> None:
    check = f"import sys, {module}; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_building_a_model_makes_no_client() -> None:
    def never() -> AsyncOpenAI:
        raise AssertionError("too early")

    ChatModel(client=never, model="m", timeout=1)


def test_usage_adds_up_and_is_json() -> None:
    usage = Usage(1, 2) + Usage(10, 20)
    assert usage == Usage(11, 22)
    assert usage == {"prompt_tokens": 11, "completion_tokens": 22}
    assert sum([Usage(1, 2), Usage(10, 20)]) == usage


def test_usage_is_kept_by_model_and_agent() -> None:
    hair = Usage(1, 2).labelled(model="small", agent="hair")
    usage = hair + Usage(10, 20, model="small", agent="route") + Usage(100, 200, model="big", agent="hair")
    assert usage.by_model == {"small": Usage(11, 22), "big": Usage(100, 200)}
    assert usage.by_model["small"].by_agent["route"]["prompt_tokens"] == 10
    assert usage.by_agent["hair"] == {"prompt_tokens": 101, "completion_tokens": 202}
    assert hair.as_json("hair") == {"small": [1, 2]}
    assert usage.as_json("hair") == {"small": {"hair": [1, 2], "route": [10, 20]}, "big": [100, 200]}
    again = Usage.of_json(usage.as_json("hair"), "hair")
    assert (again.by_model, again.by_agent) == (usage.by_model, usage.by_agent)
    assert Usage.of_json({"prompt_tokens": 3, "completion_tokens": 4}, None) == Usage(3, 4)


async def test_a_factory_is_called_once_in_an_event_loop() -> None:
    made: list[AsyncOpenAI] = []

    def make() -> AsyncOpenAI:
        made.append(rule_client(lambda _: ModelReply(text="Hi.")))
        return made[-1]

    model = ChatModel(client=make, model="m", timeout=30)
    await asyncio.gather(*(model.complete(QUESTION) for _ in range(5)))
    assert len(made) == 1
    await model.aclose()
    assert made[0].is_closed()


async def test_a_client_of_the_callers_is_not_closed() -> None:
    client = rule_client(lambda _: ModelReply(text="Hi."))
    model = ChatModel(client=client, model="m", timeout=30)
    await model.complete(QUESTION)
    await model.aclose()
    assert not client.is_closed()
    assert (await model.complete(QUESTION)).message["content"] == "Hi."


async def test_one_model_serves_event_loops_that_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    made: list[AsyncOpenAI] = []

    async def ask_in_three_loops() -> None:
        async with serve(lambda _: ModelReply(text="Hi.")) as base_url:
            make = client_of(base_url)

            def counted() -> AsyncOpenAI:
                made.append(make())
                return made[-1]

            model = ChatModel(client=counted, model="m", timeout=30)
            for _ in range(2):
                await asyncio.to_thread(lambda: asyncio.run(model.complete(QUESTION)))
            assert (await model.complete(QUESTION)).message["content"] == "Hi."
            await model.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the sockets of a closed loop can only be garbage-collected
        await ask_in_three_loops()
        assert len(made) == 3
        assert all(client.is_closed() for client in made)
        made.clear()
        gc.collect()
    await asyncio.sleep(0)  # a client that closes itself when it is collected would do so in a task
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_factory_that_cannot_make_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import AsyncOpenAI

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(ModelError, match="Set OPENAI_API_KEY"):
        await ChatModel(client=AsyncOpenAI, model="m", timeout=30).complete(QUESTION)


@pytest.mark.parametrize(
    ("key", "base_url", "remedy"),
    [
        ("clé", "http://127.0.0.1:1/v1", "OPENAI_API_KEY contains characters"),
        ("key", "http://[::broken/v1", "OPENAI_BASE_URL is not a URL"),
        ("key", "no-scheme", "Check the network, and OPENAI_BASE_URL"),
    ],
)
async def test_settings_that_cannot_work(key: str, base_url: str, remedy: str) -> None:
    def make() -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0)

    model = ChatModel(client=make, model="m", timeout=30)
    with pytest.raises(ModelError, match=remedy):
        await model.complete(QUESTION)
    await model.aclose()


async def test_half_a_character_is_replaced_before_it_is_sent() -> None:
    script = Script("Hi.")
    model = ChatModel(client=rule_client(script), model="m", timeout=30)
    await model.complete([{"role": "user", "content": "half \ud83d, whole \ud83d\ude00"}])
    assert script.requests[0].messages[0]["content"] == "half \ufffd, whole \U0001f600"


async def test_the_time_limit_holds_over_retries_and_their_waits() -> None:
    script = Script(rules=lambda _: error_reply(429, retry_after_ms=60_000))
    client = rule_client(script)  # made, and so imported, before the time starts
    with pytest.raises(ModelError, match=r"within 1 s") as raised:
        await ChatModel(client=client, model="m", timeout=1).complete(QUESTION)
    assert raised.value.retryable
    assert len(script.requests) == 1


async def test_the_time_limit_holds_over_a_stream_that_never_ends() -> None:
    shown: list[str] = []
    endless = RawReply(headers={"content-type": "text/event-stream"}, pieces=(PIECE,) * 100_000, pause=0.01)
    client = rule_client(lambda _: endless)
    with pytest.raises(ModelError, match=r"within 1 s"):
        await ChatModel(client=client, model="m", timeout=1).complete(QUESTION, on_text=shown.append)
    assert shown


async def test_a_server_silent_for_longer_than_a_request_may_take() -> None:
    async def silent(request: ModelRequest) -> ModelReply:
        await asyncio.sleep(60)
        return ModelReply(text="too late")

    async with serve(silent) as base_url:
        model = ChatModel(client=client_of(base_url), model="m", timeout=30, request_timeout=0.05)
        with pytest.raises(ModelError, match="did not answer in time") as raised:
            await model.complete(QUESTION)
        await model.aclose()
    assert raised.value.retryable


async def test_a_stream_silent_for_longer_than_a_request_may_take() -> None:
    stalled = RawReply(headers={"content-type": "text/event-stream"}, pieces=(PIECE, PIECE), pause=60)
    shown: list[str] = []
    async with serve(lambda _: stalled) as base_url:
        model = ChatModel(client=client_of(base_url), model="m", timeout=30, request_timeout=1.5)
        with pytest.raises(ModelError, match="did not answer in time"):
            await model.complete(QUESTION, on_text=shown.append)
        await model.aclose()
    assert shown == ["Hel"]


async def test_a_time_out_of_the_callers_is_not_the_models() -> None:
    async def silent(request: ModelRequest) -> ModelReply:
        await asyncio.sleep(60)
        return ModelReply(text="too late")

    model = ChatModel(client=rule_client(silent), model="m", timeout=30)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await model.complete(QUESTION)
