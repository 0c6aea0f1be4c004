"""Models: the protocol of what answers behind an agent, and the model that asks a chat-completions server.

Callers decide which messages and tools a model is shown, and what happens with its answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from moorline_agents.completion_stream import AnswerStream
from moorline_agents.dialect import Body, Dialect
from moorline_agents.messages import ModelAnswer
from moorline_agents.model_options import ModelOptions
from moorline_agents.server_model import ServerModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from openai import AsyncOpenAI, AsyncStream

    from moorline_agents.messages import Message


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


class ChatModel(ServerModel[Dialect, AnswerStream]):
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

    def _prepare(self, client: AsyncOpenAI) -> None:
        _ = client.chat.completions

    def _dialect(self, origin: str) -> Dialect:
        return Dialect(origin=origin)

    def _builder(self, dialect: Dialect, tools: AbstractSet[str]) -> AnswerStream:
        return AnswerStream(tools, thinks_first=dialect.thinks_first)

    def _shown(self, dialect: Dialect, answer: AnswerStream) -> Dialect:
        learns = answer.thinks_first and not dialect.thinks_first
        return replace(dialect, thinks_first=True) if learns else dialect

    async def _send(self, client: AsyncOpenAI, body: Body, timeout: float) -> AsyncStream[Any]:
        # As `extra_body`, what is said goes out as it is. The client would look through every message for names to
        # translate, which takes it longer than all the rest of a turn if the history is long.
        return await client.chat.completions.create(
            model=body["model"], messages=(), extra_body=body, stream=True, timeout=timeout
        )


def require_model(value: object, what: str) -> None:
    """Raises `TypeError` for a value that cannot be a model; `what` says whose it was to be."""
    if not callable(getattr(value, "complete", None)):
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise TypeError(
            f"{what} must be a Model, not {shown}: use a ChatModel, or a LangChainModel around one of LangChain's."
        )


def model_name(model: Model) -> str:
    """The name under which the model's usage is counted: its `name`, or that of its class."""
    return str(getattr(model, "name", None) or type(model).__name__)


def model_provider(model: Model) -> str:
    """Whose API the model speaks: its `provider`, or the name of its class."""
    return str(getattr(model, "provider", None) or type(model).__name__)
