"""The one place where the errors of LangChain's chat models, and of the providers' own clients, become ours."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from langchain_core import exceptions

from moorline_agents.model_errors import ContextOverflow, ModelError, is_overflow

_LONGEST = 4_096  # characters of what a provider says that are read
_REFUSING = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_ACCOUNT = {
    HTTPStatus.UNAUTHORIZED: "refused the key",
    HTTPStatus.PAYMENT_REQUIRED: "wants to be paid",
    HTTPStatus.FORBIDDEN: "forbids this",
    HTTPStatus.NOT_FOUND: "does not know the model",
}
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (exceptions.ModelAuthenticationError, HTTPStatus.UNAUTHORIZED),
    (exceptions.ModelPermissionDeniedError, HTTPStatus.FORBIDDEN),
    (exceptions.ModelNotFoundError, HTTPStatus.NOT_FOUND),
    (exceptions.ModelRateLimitError, HTTPStatus.TOO_MANY_REQUESTS),
    (exceptions.ModelInvalidRequestError, HTTPStatus.BAD_REQUEST),
    (exceptions.ModelAPIError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""LangChain's own names for what a provider answered."""


def langchain_error(error: Exception) -> ModelError:
    """What a chat model raised as a `ModelError`, whose message quotes nothing of the conversation."""
    if isinstance(error, ModelError):
        return error
    said = str(error)[:_LONGEST]
    status = _status(error)
    if isinstance(error, exceptions.ContextOverflowError) or (status in _REFUSING and is_overflow(said)):
        return ContextOverflow()
    return _without_answer(error, said) if status is None else _of_status(status, said)


def _without_answer(error: Exception, said: str) -> ModelError:
    """The error for one that says of no answer of the provider's."""
    kind = type(error).__name__
    if isinstance(error, exceptions.ModelTimeoutError | TimeoutError) or "Timeout" in kind:
        return ModelError("The model did not answer in time.", retryable=True)
    if isinstance(error, exceptions.ModelConnectionError | OSError) or "Connect" in kind:
        return ModelError("The model's server cannot be reached. Check the network.", retryable=True)
    if isinstance(error, TypeError | ValueError | NotImplementedError):
        # Chat models refuse what they cannot send in this way, such as a parameter or a kind of content.
        message = f"The chat model refused the request ({kind})."
        return ModelError(message, retryable=False, refusal=said or kind, about_request=True)
    return ModelError(f"The chat model failed ({kind}).", retryable=bool(getattr(error, "is_retryable", False)))


def _of_status(status: int, said: str) -> ModelError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ModelError(f"The model's server is failing (HTTP {status}).", retryable=True, refusal=said)
    if status in _PASSING:
        return ModelError(f"The model's server has too much to do (HTTP {status}).", retryable=True)
    if status in _ACCOUNT:
        return ModelError(f"The model's server {_ACCOUNT[HTTPStatus(status)]} (HTTP {status}).", retryable=False)
    message = f"The model's server refused the request (HTTP {status})."
    return ModelError(message, retryable=False, refusal=said, about_request=True)


def _status(error: Exception) -> int | None:
    """The HTTP status that a provider's client says it got, in one of the places where they say it."""
    response: Any = getattr(error, "response", None)
    places = (getattr(error, "status_code", None), getattr(error, "code", None), getattr(response, "status_code", None))
    found = next((each for each in places if isinstance(each, int) and 400 <= each < 600), None)  # noqa: PLR2004 - errors
    return found or next((int(status) for kind, status in _STATUS if isinstance(error, kind)), None)
