"""The one place where the errors of a model server become ours, which say what to do.

Our messages are logged, so they name what the server said only where it quotes nothing of the conversation; its own
words stay in `__cause__`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from moorline_agents.errors import AgentError
from moorline_agents.messages import Usage
from moorline_agents.refusals import told

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

_WORTH_RETRYING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_REMEDIES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "refused the key. Check OPENAI_API_KEY",
    HTTPStatus.FORBIDDEN: "forbids this. Check that the key in OPENAI_API_KEY may use OPENAI_MODEL",
    HTTPStatus.NOT_FOUND: "does not know the model. Check OPENAI_MODEL, and OPENAI_BASE_URL if it is set",
    HTTPStatus.TOO_MANY_REQUESTS: "has too many requests. Wait a little and send the message again",
}
_FAILING = "is failing. Wait a little and send the message again"

_OUT_OF_CREDIT = "The account of OPENAI_API_KEY is out of credit. Check its plan and billing."
_ANSWER_FILTERED = "The model server's content filter held the answer back. Rephrase the message."
_FILTERED = "content_filter"
_CODES = {
    _FILTERED: "The model server's content filter held the message back. Rephrase the message.",
    "insufficient_quota": _OUT_OF_CREDIT,
    "billing_hard_limit_reached": _OUT_OF_CREDIT,
}
_PASSING_CODES = frozenset({"", "server_error", "rate_limit_exceeded", "vector_store_timeout"})
_CODE = re.compile(r"[a-z0-9_.]{1,60}")

_OVERFLOW = (
    "The conversation is too long for the model. Show it fewer messages, or use a model with more room (OPENAI_MODEL)."
)
_OVERFLOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "array_above_max_length"})
_OVERFLOW_WORDS = re.compile(
    r"maximum (context|model|prompt) length|maximum context size|context[ _](length|window|size|limit)s?\b.{0,40}exceed"
    r"|exceed\w*.{0,60}\b(context|model) ?_?(length|window|size|limit)|longer than the model's context"
    r"|greater than the context length|context the overflows|context overflow|model's context length is only"
    r"|model token limit|token limit exceeded|too many tokens|token count.{0,40}exceeds the (maximum|limit)"
    r"|too long to fit into the model|too large for model with|(prompt|input|request) (is )?too (long|large)\b"
    r"|input length should be|input is too large to process|reduce the length of the (messages|input|prompt)"
    r"|must have less than \d+ tokens|max_new_tokens` must be <=|max_tokens must be at least 1, got -",
    re.IGNORECASE | re.DOTALL,
)
"""What servers without a code for it say, among them vLLM, llama.cpp, LM Studio, Ollama, TGI, SGLang, Gemini, Mistral,
xAI, Groq, Kimi, MiniMax, and proxies of Anthropic's and Amazon's models."""
_LIMITS = re.compile(
    r"(?:n_ctx\W{1,3}|(?:context|prompt|model) length(?: is| of)?(?: only)? \(?|available context size \("
    r"|tokens allowed \(|model token limit: |too large for model with |tokens > |exceeds the limit of )(\d{3,9})\b",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:n_prompt_tokens\W{1,3}|requested (?:about )?|resulted in |input token count \(|prompt is too long: |length "
    r"|request \(|The input \(|contains |passed |n_keep: |count of |Given: )(\d{3,9})\b",
    re.IGNORECASE,
)
_LONGEST_ERROR = 4_096  # characters of an error's body that are read

_CUT_OFF = "The model's answer ran into its length limit. Raise it on the server, or use another model (OPENAI_MODEL)."
_SILENT = "The model server did not answer in time."
_UNREACHABLE = "The model server cannot be reached. Check the network, and OPENAI_BASE_URL if it is set."
_TOO_LONG = "The model server sent far more than an answer and was stopped. Check OPENAI_BASE_URL."
_MALFORMED = (
    "The model server sent something that is not a chat-completions stream, or not the stream of the API that it was "
    "asked by. Check OPENAI_BASE_URL."
)
_BROKE_OFF = "The model server failed in the middle of its answer."
_NO_URL = "OPENAI_BASE_URL is not a URL. Set it to one like https://host/v1."
_NO_KEY = "OPENAI_API_KEY contains characters that no key has. Copy it again."
_NO_TEXT = "The conversation contains half a character (a lone surrogate). Remove it from what is sent."
_NO_CLIENT = "The OpenAI client cannot be used as it is set up. Set OPENAI_API_KEY."


class ModelError(AgentError):
    """The model gave no whole answer.

    `retryable` is whether the same request may well succeed later: after too many requests, a failing server, a
    timeout, a lost connection or an answer that was cut off. The client's own retries are used up by then.
    `refusal` is what the server said of a request that it does not take as it is, else empty. It may quote the
    conversation. `about_request` is whether the model failed over what it was shown or asked, rather than over its
    server or the account there, so that another model is no remedy. `usage` is what answers cost that came to nothing,
    as far as the server said.
    """

    def __init__(self, message: str, *, retryable: bool, refusal: str = "", about_request: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.refusal = refusal
        self.about_request = about_request
        self.usage = Usage()

    @classmethod
    def malformed(cls) -> Self:
        """For bytes that are not a chat-completions stream."""
        return cls(_MALFORMED, retryable=False)

    @classmethod
    def too_long(cls) -> Self:
        """For a stream that is longer than any answer."""
        return cls(_TOO_LONG, retryable=False)

    @classmethod
    def too_slow(cls, seconds: float) -> Self:
        """For a completion that took longer than it may in total."""
        message = f"The model gave no whole answer within {seconds:g} s."
        return cls(message, retryable=True)

    @classmethod
    def filtered(cls) -> Self:
        """For an answer that the server does not let through."""
        return cls(_ANSWER_FILTERED, retryable=False, about_request=True)


class ContextOverflow(ModelError):
    """The request is longer than the model can take. It was refused as a whole; a shorter one may be taken.

    `limit` is the most tokens that the server says it takes, and `asked` the tokens that it counted; each is None if it
    does not say.
    """

    retryable = False

    def __init__(self, *, limit: int | None = None, asked: int | None = None) -> None:
        super().__init__(_OVERFLOW, retryable=False, about_request=True)
        self.limit = limit
        self.asked = asked


class AnswerCutOff(ModelError):
    """The answer ran into a limit of its length. If the conversation all but fills what the model can take, a shorter
    one leaves it more room."""

    retryable = False

    def __init__(self) -> None:
        super().__init__(_CUT_OFF, retryable=False, about_request=True)


class InTime:
    """A block in which a model answers. It has so many seconds, and a `ModelError` out of it has the usage of all that
    was asked in it."""

    def __init__(self, seconds: float) -> None:
        self.usage = Usage()
        """What was spent so far; the block adds to it."""
        self._seconds = seconds
        self._deadline = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._deadline.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ModelError):
            error.usage += self.usage
        try:
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError as late:
            slow = ModelError.too_slow(self._seconds)
            slow.usage = self.usage
            raise slow from late


@contextmanager
def model_errors(messages: Sequence[Mapping[str, Any]] = ()) -> Iterator[None]:
    """Turns the OpenAI client's errors inside the block into a `ModelError`; others pass through unchanged. `messages`
    is the conversation that was sent, of which an error must quote nothing."""
    try:
        yield
    except Exception as error:
        ours = _translated(error, messages)
        if ours is None:
            raise
        raise ours from error


def is_overflow(said: str) -> bool:
    """Whether a server says, in its own words, that the request is too long for the model."""
    return bool(_OVERFLOW_WORDS.search(said))


def said_by_server(said: Mapping[str, Any]) -> ModelError:
    """The error for what a server says in a stream, which the client does not raise: an object with a code and a
    message."""
    import httpx2  # noqa: PLC0415 - as openai
    import openai  # noqa: PLC0415 - whoever reads a stream has imported it

    error = openai.APIError("", httpx2.Request("POST", "http://server.invalid"), body=dict(said))
    ours = _of_code(error)
    if ours is not None:
        return ours
    if not isinstance(error.code, str) or error.code in _PASSING_CODES:
        return ModelError(_BROKE_OFF, retryable=True, refusal=_said(error))
    named = f" ({error.code})" if _CODE.fullmatch(error.code) else ""
    message = f"The model server refused the request{named}."
    return ModelError(message, retryable=False, refusal=_said(error), about_request=True)


def _translated(error: Exception, messages: Sequence[Mapping[str, Any]]) -> ModelError | None:
    import httpx2  # noqa: PLC0415 - as openai
    import openai  # noqa: PLC0415 - half a second that only a process which talks to a model pays

    if isinstance(error, openai.APIStatusError):
        return _of_status(error, messages)
    if isinstance(error, UnicodeEncodeError):  # a key goes into a header, texts go into the body
        of_key = error.encoding == "ascii"
        return ModelError(_NO_KEY if of_key else _NO_TEXT, retryable=False, about_request=not of_key)
    meanings: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, bool], ...] = (
        (openai.APITimeoutError, _SILENT, True),
        (openai.APIConnectionError, _UNREACHABLE, True),
        # The client passes on what it cannot decode.
        (
            (openai.APIResponseValidationError, json.JSONDecodeError, UnicodeDecodeError, RecursionError),
            _MALFORMED,
            False,
        ),
        (httpx2.InvalidURL, _NO_URL, False),
    )
    for kind, message, retryable in meanings:
        if isinstance(error, kind):
            return ModelError(message, retryable=retryable)
    if isinstance(error, openai.APIError):
        return _of_code(error) or ModelError(_BROKE_OFF, retryable=True, refusal=_said(error))
    return ModelError(_NO_CLIENT, retryable=False) if isinstance(error, openai.OpenAIError) else None


def _of_status(error: APIStatusError, messages: Sequence[Mapping[str, Any]]) -> ModelError:
    status = error.status_code
    failing = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ours = _of_code(error)
    if ours is not None:
        return ours
    if failing or status in _REMEDIES:
        remedy = _FAILING if failing else _REMEDIES[status]
        # Some servers fail over what they do not take instead of refusing it, or find no model that takes it.
        refusal = _said(error) if failing or status == HTTPStatus.NOT_FOUND else ""
        retryable = failing or status in _WORTH_RETRYING
        return ModelError(f"The model server {remedy} (HTTP {status}).", retryable=retryable, refusal=refusal)
    shown = told(error.body, messages)
    return ModelError(
        f"The model server refused the request (HTTP {status}){f': {shown}' if shown else '.'}",
        retryable=status in _WORTH_RETRYING,
        refusal=_said(error),
        about_request=status not in _WORTH_RETRYING,
    )


def _of_code(error: APIError) -> ModelError | None:
    """The error for what the server itself says, if that says more than the HTTP status, which errors in a stream
    lack."""
    message = _CODES.get(error.code) if isinstance(error.code, str) else None
    if message is not None:
        return ModelError(message, retryable=False, about_request=error.code == _FILTERED)
    return _overflow(error)


def _overflow(error: APIError) -> ContextOverflow | None:
    """The error for a request that is too long, by the server's code or status if there is one, else by its words."""
    said = _said(error)
    by_code = not _OVERFLOW_CODES.isdisjoint(code for code in (error.code, error.type) if isinstance(code, str))
    by_status = getattr(error, "status_code", None) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    if not (by_code or by_status or is_overflow(said)):
        return None
    limit, asked = _LIMITS.search(said), _ASKED.search(said)
    return ContextOverflow(
        limit=int(limit[1]) if limit else None,
        asked=int(asked[1]) if asked else None,
    )


def _said(error: APIError) -> str:
    """All that the server said, whatever form its error has."""
    body: Any = error.body
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
    return text[:_LONGEST_ERROR]
