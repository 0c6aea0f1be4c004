"""What models behind the OpenAI client have in common, whichever of its APIs they use: clients, time limits, retries,
and learning what a server takes."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

from moorline_agents.answer_schema import answered
from moorline_agents.dialect import Body, Request
from moorline_agents.extra_fields import signed
from moorline_agents.messages import ModelAnswer, Usage
from moorline_agents.model_errors import InTime, ModelError, model_errors
from moorline_agents.model_options import NO_OPTIONS, ModelOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from collections.abc import Set as AbstractSet

    from openai import AsyncOpenAI, AsyncStream

    from moorline_agents.event_stream import WatchedStream
    from moorline_agents.messages import Message
    from moorline_agents.model import ToolChoice

logger = logging.getLogger("moorline.model")


class ServerDialect(Protocol):
    """What a server takes for a model, as far as it is known: a frozen dataclass."""

    @property
    def lost(self) -> frozenset[str]:
        """The options that it does not take."""

    def body(self, request: Request) -> Body:
        """The body of a request, but for its being streamed."""

    def learned(self, refusal: str, body: Body) -> Self | None:
        """The dialect without what `refusal`, the server's words about a request with this body, names; None if that is
        nothing that can be done without."""


class AnswerBuilder(Protocol):
    """Puts an answer together from the chunks of its stream."""

    usage: Usage

    def add(self, chunk: object, /) -> str:
        """Takes in one chunk and returns the text in it that may be shown. Raises `ModelError`."""

    def end(self) -> str:
        """Says that no chunk will follow, and returns the text that was held back till then."""

    @property
    def begun(self) -> bool:
        """Whether any part of an answer has come."""

    @property
    def says_nothing(self) -> bool:
        """Whether the answer came to its end without saying anything that can be used."""

    def finish(self, *, ended: bool) -> ModelAnswer:
        """The whole answer. `ended` says that the stream came to its end mark. Raises `ModelError`."""


DialectT = TypeVar("DialectT", bound=ServerDialect)
BuilderT = TypeVar("BuilderT", bound=AnswerBuilder)


class ServerModel(ABC, Generic[DialectT, BuilderT]):
    """A model behind the OpenAI client: one streamed answer, whole or a `ModelError`."""

    provider = "openai"
    """Whose API it speaks, whatever server is behind it; for traces."""

    api = ""
    """Which of the APIs it speaks, if there is more than one."""

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

        `on_text` gets each piece of text as it arrives; if the answer then fails, what was shown has to be withdrawn.
        Tool calls are passed on as the model wrote them, even with unknown names and wrong arguments. `options` that
        the server has refused are left out. Raises `ModelError`.
        """
        options = options or NO_OPTIONS
        with model_errors():
            # Importing the client may take longer than an answer; that must not count as the server's time.
            client = await self._client()
            self._prepare(client)
        dialects, origin = self._dialects(client)
        request = Request(model=self.name, messages=messages, tools=tools, tool_choice=tool_choice, options=options)
        async with InTime(self._timeout) as spent:
            for again in (True, False):
                known = dialects.get(origin) or self._dialect(origin)
                reading = await self._read(client, known, request, on_text)
                if reading.dialect is not known:
                    dialects[origin] = reading.dialect
                    for name in sorted(reading.dialect.lost - known.lost):
                        logger.warning("The server of model %s does not take %s; it does without.", self.name, name)
                spent.usage += reading.answer.usage
                if not (again and reading.answer.says_nothing):  # an empty answer is often followed by a full one
                    break
            whole = reading.answer.finish(ended=reading.ended)
            if options.schema is not None:
                whole = answered(whole)
        return ModelAnswer(signed(whole.message, origin), spent.usage, whole.finish_reason)

    async def aclose(self) -> None:
        """Closes the client that was made for the running event loop, if there is one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    @abstractmethod
    def _prepare(self, client: AsyncOpenAI) -> None:
        """Imports what the first request would."""

    @abstractmethod
    def _dialect(self, origin: str) -> DialectT:
        """What a server takes of which nothing is known. `origin` names it and the model."""

    @abstractmethod
    def _builder(self, dialect: DialectT, tools: AbstractSet[str]) -> BuilderT:
        """For an answer to a request that offers tools of these names."""

    @abstractmethod
    async def _send(self, client: AsyncOpenAI, body: Body, timeout: float) -> AsyncStream[Any]:
        """Sends a request, and returns the stream of its answer as the client gives it."""

    @abstractmethod
    def _shown(self, dialect: DialectT, answer: BuilderT) -> DialectT:
        """The dialect with what an answer shows of how others are to be read."""

    async def _read(
        self, client: AsyncOpenAI, dialect: DialectT, request: Request, on_text: Callable[[str], None] | None
    ) -> _Read[DialectT, BuilderT]:
        """A streamed answer. What the server refuses is left out, and it is asked again."""
        while True:
            body = dialect.body(request)
            answer = self._builder(dialect, frozenset(map(_tool_name, body.get("tools", ()))))
            watch = _Watch()
            try:
                async with aclosing(self._chunks(client, body, request, watch)) as chunks:
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
                return _Read(answer=answer, ended=watch.ended, dialect=self._shown(dialect, answer))

    async def _chunks(
        self, client: AsyncOpenAI, body: Body, request: Request, watch: _Watch
    ) -> AsyncGenerator[object, None]:
        from moorline_agents.event_stream import WatchedStream  # noqa: PLC0415 - needs httpx2, which openai imports

        with model_errors(request.messages):
            stream = await self._send(client, body, self._request_timeout)
            # What instruments the client may give something else that can be read.
            response = getattr(stream, "response", None)
            if response is not None:
                watch.stream = response.stream = WatchedStream(response)
            async with stream:
                async for chunk in stream:
                    yield chunk

    def _dialects(self, client: AsyncOpenAI) -> tuple[dict[str, DialectT], str]:
        """The dialects that servers have taken, by origin, and this server's origin. They are kept for as long as the
        process runs, or the caller's client lives."""
        known = _DIALECTS if callable(self._source) else _DIALECTS_OF.setdefault(client, {})
        base_url = str(client.base_url.copy_with(userinfo=b"", query=None))
        return known, _origin(base_url, self.name, self.api)

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


_DIALECTS: dict[str, Any] = {}
_DIALECTS_OF: WeakKeyDictionary[AsyncOpenAI, dict[str, Any]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read(Generic[DialectT, BuilderT]):
    """An answer, whether its end mark came, and the dialect that the server took."""

    answer: BuilderT
    ended: bool
    dialect: DialectT


class _Watch:
    """Whether an answer's stream came to its end mark."""

    stream: WatchedStream | None = None

    @property
    def ended(self) -> bool:
        return self.stream is None or self.stream.ended


def _tool_name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("function", tool)["name"])


def _tell(text: str, on_text: Callable[[str], None] | None) -> None:
    if text and on_text is not None:
        on_text(text)


def _origin(base_url: str, model: str, api: str) -> str:
    """What stands for a server, a model and an API in messages that came from them."""
    named = f"{base_url}\n{model}\n{api}" if api else f"{base_url}\n{model}"
    return sha256(named.encode()).hexdigest()[:16]
