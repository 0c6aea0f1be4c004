"""Models: the protocol of what answers behind an agent, and the model that asks a chat-completions server.

Callers decide which messages and tools a model is shown, and what happens with its answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, Protocol
from weakref import WeakKeyDictionary

from moorline_agents.answer_schema import answered
from moorline_agents.completion_stream import AnswerStream
from moorline_agents.dialect import Body, Dialect, Request
from moorline_agents.extra_fields import signed
from moorline_agents.messages import ModelAnswer, Usage
from moorline_agents.model_errors import ModelError, model_errors
from moorline_agents.model_options import NO_OPTIONS, ModelOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from openai import AsyncOpenAI
    from openai.resources.chat import AsyncCompletions

    from moorline_agents.event_stream import WatchedStream
    from moorline_agents.messages import Message

logger = logging.getLogger("moorline.model")

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
        options: ModelOptions | None = None,
    ) -> ModelAnswer:
        """One whole answer to `messages`, the first of which is the system message.

        The answer may call `tools`, as `tool_choice` says; None leaves that to the model. The caller checks whether the
        calls make sense. `on_text` gets the text piece by piece if it comes in pieces; if the answer fails after all,
        the caller withdraws what was shown. `options` say how the model is asked; one that it does not know of it may
        leave out.

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

    The client gets messages and tools as `extra_body`, so that is where its instruments find them. Building a
    `ChatModel` imports nothing and sends nothing.
    """

    provider = "openai"
    """Whose API it speaks, whatever server is behind it; for traces."""

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
        options: ModelOptions | None = None,
    ) -> ModelAnswer:
        """One answer to `messages`, which may call `tools` (entries of the request's list of that name).

        `on_text` gets each piece of text as it arrives; if the completion then fails, what was shown has to be
        withdrawn. Tool calls are passed on as the model wrote them, even with unknown names and wrong arguments.
        `options` that the server has refused are left out. Raises `ModelError`.
        """
        options = options or NO_OPTIONS
        with model_errors():
            # Importing the client may take longer than an answer; that must not count as the server's time.
            client = await self._client()
            completions = client.chat.completions
        dialects, origin = self._dialects(client)
        request = Request(model=self.name, messages=messages, tools=tools, tool_choice=tool_choice, options=options)
        deadline = asyncio.timeout(self._timeout)
        usage = Usage()
        try:
            async with deadline:
                for again in (True, False):
                    known = dialects.get(origin, Dialect(origin=origin))
                    answer, ended, taken = await self._answer(completions, known, request, on_text)
                    if taken is not known:
                        dialects[origin] = taken
                        for name in sorted(taken.lost - known.lost):
                            logger.warning("The server of model %s does not take %s; it does without.", self.name, name)
                    usage += answer.usage
                    if not (again and answer.says_nothing):  # an empty answer is often followed by a full one
                        break
            whole = answer.finish(ended=ended)
            if options.schema is not None:
                whole = answered(whole)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            slow = ModelError.too_slow(self._timeout)
            slow.usage = usage
            raise slow from error
        except ModelError as error:
            error.usage += usage
            raise
        return ModelAnswer(signed(whole.message, origin), usage, whole.finish_reason)

    async def aclose(self) -> None:
        """Closes the client that was made for the running event loop, if there is one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _answer(
        self,
        completions: AsyncCompletions,
        dialect: Dialect,
        request: Request,
        on_text: Callable[[str], None] | None,
    ) -> tuple[AnswerStream, bool, Dialect]:
        """A streamed answer, whether its end mark came, and the dialect that the server took. What it refuses is left
        out, and it is asked again."""
        while True:
            body = dialect.body(request)
            offered = frozenset(tool["function"]["name"] for tool in body.get("tools", ()))
            answer = AnswerStream(offered, thinks_first=dialect.thinks_first)
            reading = _Reading(completions, body, self._request_timeout)
            try:
                async with aclosing(reading.chunks()) as chunks:
                    async for chunk in chunks:
                        _tell(answer.add(chunk), on_text)
                _tell(answer.end(), on_text)
            except ModelError as error:
                learned = dialect.learned(error.refusal, body) if error.refusal and not answer.begun else None
                if learned is None:
                    error.usage = answer.usage
                    raise
                dialect = learned
            else:
                if answer.thinks_first and not dialect.thinks_first:
                    dialect = replace(dialect, thinks_first=True)
                return answer, reading.ended, dialect

    def _dialects(self, client: AsyncOpenAI) -> tuple[dict[str, Dialect], str]:
        """The dialects that servers have taken, by origin, and this server's origin. They are kept for as long as the
        process runs, or the caller's client lives."""
        known = _DIALECTS if callable(self._source) else _DIALECTS_OF.setdefault(client, {})
        return known, _origin(str(client.base_url.copy_with(userinfo=b"", query=None)), self.name)

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


def model_provider(model: Model) -> str:
    """Whose API the model speaks: its `provider`, or the name of its class."""
    return str(getattr(model, "provider", None) or type(model).__name__)


_DIALECTS: dict[str, Dialect] = {}
_DIALECTS_OF: WeakKeyDictionary[AsyncOpenAI, dict[str, Dialect]] = WeakKeyDictionary()


class _Reading:
    """One request and its answer."""

    def __init__(self, completions: AsyncCompletions, body: Body, timeout: float) -> None:
        self._completions = completions
        self._body = body
        self._timeout = timeout
        self._watched: WatchedStream | None = None

    @property
    def ended(self) -> bool:
        """Whether the answer came to its end mark."""
        return self._watched is None or self._watched.ended

    async def chunks(self) -> AsyncGenerator[object, None]:
        from moorline_agents.event_stream import WatchedStream  # noqa: PLC0415 - needs httpx2, which openai imports

        with model_errors(self._body["messages"]):
            # As `extra_body`, what is said goes out as it is. The client would look through every message for names to
            # translate, which takes it longer than all the rest of a turn if the history is long.
            stream = await self._completions.create(
                model=self._body["model"], messages=(), extra_body=self._body, stream=True, timeout=self._timeout
            )
            # What instruments the client may give something else that can be read.
            response = getattr(stream, "response", None)
            if response is not None:
                self._watched = response.stream = WatchedStream(response)
            async with stream:
                async for chunk in stream:
                    yield chunk


def _tell(text: str, on_text: Callable[[str], None] | None) -> None:
    if text and on_text is not None:
        on_text(text)


def _origin(base_url: str, model: str) -> str:
    """What stands for a server and a model in messages that came from them."""
    return sha256(f"{base_url}\n{model}".encode()).hexdigest()[:16]
