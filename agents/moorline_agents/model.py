"""Models: the protocol of what answers behind an agent, and the model that asks a chat-completions server.

Callers decide which messages and tools a model is shown, and what happens with its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol

from moorline_agents.completion_stream import AnswerStream
from moorline_agents.model_errors import ModelError, model_errors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from openai import AsyncOpenAI
    from openai.resources.chat import AsyncCompletions

    from moorline_agents.messages import Message, ModelAnswer


ToolChoice = Literal["none"] | Mapping[str, Any]
"""That no tool may be called, or the one that must be, as `{"type": "function", "function": {"name": …}}`."""


class Model(Protocol):
    """What answers behind an agent or the router: `ChatModel`, or an object of your own.

    Messages, tools and answers have the form that chat-completions servers use, whatever server is behind the model.
    One object answers any number of turns at once. If it has a method `async def aclose()`, the runtime awaits that
    when the runtime is closed; another runtime may use the object again afterwards.
    """

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: ToolChoice | None,
        on_text: Callable[[str], None] | None,
    ) -> ModelAnswer:
        """One whole answer to `messages`, the first of which is the system message.

        The answer may call `tools`, as `tool_choice` says; None leaves that to the model. The caller checks whether the
        calls make sense. `on_text` gets the text piece by piece if it comes in pieces; if the answer fails after all,
        the caller withdraws what was shown.

        Raises `ModelError` if there is no answer. The model sets its own time limit; it stops when it is cancelled.
        """


class ChatModel:
    """A chat-completions model behind the OpenAI client: one streamed completion, whole or a `ModelError`.

    `client` is either a client, which is used as it is and never closed, or a function that makes one. The function is
    called once in each event loop (a connection pool belongs to the loop it was built in), and this object closes the
    clients that it made. The client's `max_retries` says how often a failed request is tried again.

    `timeout` is the seconds that a completion may take in all, including retries and the waits between them;
    `request_timeout` the seconds that a request may take to connect, or to send the next part of its answer. It is half
    of `timeout` by default, so that a silent server is asked a second time.

    Building a `ChatModel` imports nothing and sends nothing.
    """

    def __init__(
        self,
        *,
        client: AsyncOpenAI | Callable[[], AsyncOpenAI],
        model: str,
        timeout: float,
        request_timeout: float | None = None,
    ) -> None:
        self.name = model
        self._source = client
        self._timeout = timeout
        self._request_timeout = timeout / 2 if request_timeout is None else request_timeout
        self._clients: dict[asyncio.AbstractEventLoop, AsyncOpenAI] = {}

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: ToolChoice | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> ModelAnswer:
        """One answer to `messages`, which may call `tools` (entries of the request's list of that name).

        `on_text` gets each piece of text as it arrives; if the completion then fails, what was shown has to be
        withdrawn. Tool calls are passed on as the model wrote them, even with unknown names and wrong arguments.
        Raises `ModelError`.
        """
        request: dict[str, Any] = {"model": self.name, "messages": list(messages)}
        if tools:
            request["tools"] = list(tools)
        if tool_choice is not None:
            request["tool_choice"] = tool_choice
        with model_errors():
            # Importing the client may take longer than an answer; that must not count as the server's time.
            completions = (await self._client()).chat.completions
        answer = AnswerStream()
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline, aclosing(self._chunks(completions, request)) as chunks:
                async for chunk in chunks:
                    text = answer.add(chunk)
                    if text and on_text is not None:
                        on_text(text)
        except TimeoutError as error:
            if deadline.expired():
                raise ModelError.too_slow(self._timeout) from error
            raise
        return answer.finish()

    async def aclose(self) -> None:
        """Closes the client that was made for the running event loop, if there is one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _chunks(self, completions: AsyncCompletions, request: Mapping[str, Any]) -> AsyncGenerator[object, None]:
        with model_errors():
            stream = await completions.create(
                **request, stream=True, stream_options={"include_usage": True}, timeout=self._request_timeout
            )
            async with stream:
                async for chunk in stream:
                    yield chunk

    async def _client(self) -> AsyncOpenAI:
        if not callable(self._source):
            return self._source
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._source()
            await self._drop_dead()
        return client

    async def _drop_dead(self) -> None:
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            client = self._clients.pop(loop, None)
            # Its connections cannot be closed properly without their loop; marking the client closed keeps
            # it from trying that once more when it is collected.
            with suppress(Exception):
                if client is not None:
                    await client.close()


def model_name(model: Model) -> str:
    """The name under which the model's usage is counted: its `name`, or that of its class."""
    return str(getattr(model, "name", None) or type(model).__name__)
