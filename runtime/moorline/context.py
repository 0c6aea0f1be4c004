"""What a caller passes in: the message and its context, checked before anything is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

from moorline.errors import InvalidContext, InvalidMessage
from moorline.settings import OnCancel, Settings
from moorline_checkpoint.devices import require_device_id
from moorline_checkpoint.messages import IncomingMessage, OnBusy, Resume

if TYPE_CHECKING:
    from moorline_agents.run import OnText

__all__ = ["Call", "Resume", "TurnContext", "check_call"]

MAX_MESSAGE = 100_000
"""Characters of one message; chat platforms allow a few thousand."""

MAX_MESSAGE_ID = 200
"""Characters of a message ID."""

DEVICE_KEYS = ("device_id", "user_id", "wa_id", "session_id")
"""The keys that may hold a context's device, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """Who is speaking, and how the turn is to be run; a plain mapping is turned into one of these.

    `timeout` is in seconds, for the whole turn including waiting (None: the setting). `values` reach the agents
    unchanged and are stored with the message until its turn ends, so they must be JSON.
    """

    device_id: str
    message_id: str | None = None
    on_busy: OnBusy | None = None
    on_cancel: OnCancel | None = None
    timeout: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Mapping[str, Any] | TurnContext) -> TurnContext:
        """The context as a `TurnContext`. Raises `InvalidContext` if it names no device."""
        if isinstance(context, TurnContext):
            return context
        if not isinstance(context, Mapping):
            raise InvalidContext(f"The context must be a mapping or a TurnContext, not {type(context).__name__}.")
        key = next((key for key in DEVICE_KEYS if context.get(key) is not None), None)
        if key is None:
            raise InvalidContext(f"The context names no device: give one of {', '.join(DEVICE_KEYS)}.")
        own = {key, "message_id", "on_busy", "on_cancel", "timeout"}
        return cls(
            device_id=context[key],
            message_id=context.get("message_id"),
            on_busy=context.get("on_busy"),
            on_cancel=context.get("on_cancel"),
            timeout=context.get("timeout"),
            values={name: value for name, value in context.items() if name not in own},
        )


@dataclass(frozen=True, kw_only=True)
class Call:
    """A checked message, and how its caller wants it to be answered."""

    message: IncomingMessage
    timeout: float
    """Seconds, including waiting."""
    on_cancel: OnCancel
    on_text: OnText | None = None
    made_up_id: bool = False
    """Whether the message came without an ID: no earlier call can then have had the same message."""


def check_call(
    message: str | Resume,
    context: Mapping[str, Any] | TurnContext,
    settings: Settings,
    on_text: OnText | None = None,
) -> Call:
    """Raises `InvalidMessage`, `InvalidContext` or `InvalidDeviceID`; nothing has been stored by then."""
    turn = TurnContext.of(context)
    resume = message if isinstance(message, Resume) else None
    checked = IncomingMessage(
        device_id=require_device_id(turn.device_id, uuid_only=settings.device_ids == "uuid"),
        message_id=_message_id(turn.message_id, resume, required=settings.require_message_id),
        text="" if isinstance(message, Resume) else _text(message),
        resume=_checked(resume),
        values=_json(turn.values),
        on_busy=_one_of("on_busy", turn.on_busy or settings.on_busy, get_args(OnBusy)),
    )
    return Call(
        message=checked,
        timeout=_timeout(turn.timeout, settings),
        on_cancel=_one_of("on_cancel", turn.on_cancel or settings.on_cancel, get_args(OnCancel)),
        on_text=on_text,
        made_up_id=turn.message_id is None and resume is None,
    )


def _checked(resume: Resume | None) -> Resume | None:
    if resume is not None:
        try:
            json.dumps(resume.value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidMessage(f"The value of a Resume must be JSON ({error}).") from error
    return resume


def _text(message: object) -> str:
    if not isinstance(message, str):
        raise InvalidMessage(f"A message must be text or a Resume, not {type(message).__name__}.")
    if not message.strip():
        raise InvalidMessage("The message is empty; there is nothing to answer.")
    if len(message) > MAX_MESSAGE:
        raise InvalidMessage(
            f"The message has {len(message):,} characters, but only {MAX_MESSAGE:,} are allowed; send it in parts."
        )
    return str(message)


def _message_id(message_id: object, resume: Resume | None, *, required: bool) -> str:
    if message_id is None and resume is not None:  # an answer to an interrupt is one message however often it is sent
        return f"resume:{resume.interrupt_id}"
    if message_id is None:
        if required:
            raise InvalidContext(
                "The context has no message_id, and MOORLINE_REQUIRE_MESSAGE_ID demands one: pass the ID that your "
                "webhook gives the message, so that it is answered only once, however often it is delivered."
            )
        return str(uuid4())
    if not isinstance(message_id, str) or not 0 < len(message_id) <= MAX_MESSAGE_ID or "\0" in message_id:
        raise InvalidContext(f"message_id must be text of 1 to {MAX_MESSAGE_ID} characters.")
    return message_id


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values after a round trip through JSON, as a rerun of the turn gets them."""
    checked = {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise InvalidContext(f"The context's keys must be text, not {type(name).__name__}.")
        try:
            checked[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidContext(
                f"The context's {name!r} is not JSON ({error}); pass text, numbers, lists and mappings only."
            ) from error
    return checked


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise InvalidContext(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
    return value


def _timeout(timeout: object, settings: Settings) -> float:
    if timeout is None:
        return settings.turn_timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidContext(f"timeout must be a positive number of seconds, not {timeout!r}.")
    return float(timeout)
