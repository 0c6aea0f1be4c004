"""The one place where the errors of a model server become ours, which say what to do.

The server's own words stay in `__cause__`: they may quote the conversation, so they are kept out of our messages,
which are logged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from moorline_agents.errors import AgentError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

_WORTH_RETRYING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_REMEDIES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "refused the key. Check OPENAI_API_KEY",
    HTTPStatus.FORBIDDEN: "forbids this. Check that the key in OPENAI_API_KEY may use OPENAI_MODEL",
    HTTPStatus.NOT_FOUND: "does not know the model. Check OPENAI_MODEL, and OPENAI_BASE_URL if it is set",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "finds the conversation too long. Show it fewer messages",
    HTTPStatus.TOO_MANY_REQUESTS: "has too many requests. Wait a little and send the message again",
}
_FAILING = "is failing. Wait a little and send the message again"
_REFUSED = "refused the request. Check that OPENAI_MODEL can stream and call tools"

_OUT_OF_CREDIT = "The account of OPENAI_API_KEY is out of credit. Check its plan and billing."
_CODES = {
    "context_length_exceeded": "The conversation is too long for the model. Show it fewer messages, or use a "
    "model with more room (OPENAI_MODEL).",
    "insufficient_quota": _OUT_OF_CREDIT,
    "billing_hard_limit_reached": _OUT_OF_CREDIT,
}

_SILENT = "The model server did not answer in time."
_UNREACHABLE = "The model server cannot be reached. Check the network, and OPENAI_BASE_URL if it is set."
_MALFORMED = "The model server sent something that is not a chat-completions stream. Check OPENAI_BASE_URL."
_BROKE_OFF = "The model server failed in the middle of its answer."
_NO_URL = "OPENAI_BASE_URL is not a URL. Set it to one like https://host/v1."
_NO_KEY = "OPENAI_API_KEY contains characters that no key has. Copy it again."
_NO_TEXT = "The conversation contains half a character (a lone surrogate). Remove it from what is sent."
_NO_CLIENT = "The OpenAI client cannot be used as it is set up. Set OPENAI_API_KEY."


class ModelError(AgentError):
    """The model gave no whole answer.

    `retryable` is whether the same request may well succeed later: after too many requests, a failing server, a
    timeout, a lost connection or an answer that was cut off. The client's own retries are used up by then.
    """

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable

    @classmethod
    def malformed(cls) -> Self:
        """For bytes that are not a chat-completions stream."""
        return cls(_MALFORMED, retryable=False)

    @classmethod
    def too_slow(cls, seconds: float) -> Self:
        """For a completion that took longer than it may in total."""
        message = f"The model gave no whole answer within {seconds:g} s."
        return cls(message, retryable=True)


@contextmanager
def model_errors() -> Iterator[None]:
    """Turns the OpenAI client's errors inside the block into a `ModelError`; others pass through unchanged."""
    try:
        yield
    except Exception as error:
        ours = _translated(error)
        if ours is None:
            raise
        raise ours from error


def _translated(error: Exception) -> ModelError | None:
    import httpx2  # noqa: PLC0415 - as openai
    import openai  # noqa: PLC0415 - half a second that only a process which talks to a model pays

    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, UnicodeEncodeError):  # a key goes into a header, texts go into the body
        return ModelError(_NO_KEY if error.encoding == "ascii" else _NO_TEXT, retryable=False)
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
        return _of_code(error) or ModelError(_BROKE_OFF, retryable=True)
    return ModelError(_NO_CLIENT, retryable=False) if isinstance(error, openai.OpenAIError) else None


def _of_status(error: APIStatusError) -> ModelError:
    status = error.status_code
    failing = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    remedy = _FAILING if failing else _REMEDIES.get(status, _REFUSED)
    return _of_code(error) or ModelError(
        f"The model server {remedy} (HTTP {status}).", retryable=failing or status in _WORTH_RETRYING
    )


def _of_code(error: APIError) -> ModelError | None:
    """The error for the server's own code, if that says more than the HTTP status, which errors in a stream lack."""
    message = _CODES.get(error.code or "")
    return None if message is None else ModelError(message, retryable=False)
