"""Errors of a request itself: it never reaches a conversation. Their statuses are in `problems`."""


class RequestError(Exception):
    """Root of these errors."""

    retryable = False
    """Whether the same request may succeed later."""


class BadRequest(RequestError):
    """The request cannot be read, for example because its body is not JSON."""


class Unidentified(RequestError):
    """The request does not say who is asking, or cannot prove it."""


class IssuerUnavailable(RequestError):
    """The keys of the token's issuer cannot be fetched, so that nobody can say whose it is."""

    retryable = True


class NotFound(RequestError):
    """There is nothing at this path."""


class MethodNotAllowed(RequestError):
    """The path does not take this method; the header `Allow` names those that it takes."""


class NotAcceptable(RequestError):
    """The request accepts none of the types that the path answers with."""


class BodyTooSlow(RequestError):
    """The body did not arrive in time (`MOORLINE_BODY_TIMEOUT`)."""

    retryable = True


class BodyTooLarge(RequestError):
    """The body has more bytes than are allowed (`MOORLINE_BODY_MAX`)."""


class InvalidRequest(RequestError):
    """The request can be read, but a value in it is missing or wrong."""


class TooManyRequests(RequestError):
    """The device or the address asks too often; try again in `retry_after` seconds."""

    retryable = True

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
