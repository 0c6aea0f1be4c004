"""What a caller passes in: the message and its context, checked before anything is stored."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args
from uuid import UUID, uuid4

from moorline import lifetime
from moorline.errors import InvalidContext, InvalidDeviceID, InvalidMessage
from moorline.files import NOTHING, Brought, File, Said, parts_of
from moorline.settings import CHANNEL, DEVICE_KEYS, OnCancel, Settings
from moorline_agents.plain_json import plain_json, whole_text
from moorline_checkpoint.devices import require_device_id
from moorline_checkpoint.messages import IncomingMessage, OnBusy, Resume
from moorline_checkpoint.turn import SEPARATOR

__all__ = ["Call", "Resume", "TurnContext", "check_call"]

MAX_MESSAGE = 100_000
"""Characters of one message; chat platforms allow a few thousand."""

MAX_MESSAGE_ID = 200
"""Characters of a message ID."""

MAX_JSON = 262_144
"""Characters of JSON that the other keys of a context have together, or the value of a `Resume`."""

_ANSWER = "resume:"
"""Begins the message ID of a `Resume` that came without one."""


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """Who is speaking, and how the turn is to be run; a plain mapping is turned into one of these.

    With a `channel` the device is `channel:device_id`: the same ID on another channel is another device. `person_id` is
    whose device it is, by the word of your server and never of a client: all devices of a person have one conversation,
    which this device joins if it has another. `timeout` is
    in seconds, for the whole turn including waiting (None: the setting). `values` reach the agents unchanged and are
    stored with the message until its turn ends, so they must be JSON: at most 262,144 characters of it, nested at most
    64 levels deep. `session_ttl` among them is how many seconds after each activity the session of this turn lasts,
    `session_until` until which moment, a `datetime` or text as in ISO 8601.
    """

    device_id: str
    channel: str | None = None
    message_id: str | int | None = None
    person_id: str | int | None = None
    on_busy: OnBusy | None = None
    on_cancel: OnCancel | None = None
    timeout: float | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Mapping[str, Any] | TurnContext, *, device_keys: Collection[str] = DEVICE_KEYS) -> TurnContext:
        """The context as a `TurnContext`. Raises `InvalidContext` unless it names one device, under one of
        `device_keys` or under several of them alike."""
        if isinstance(context, TurnContext):
            return context
        if not isinstance(context, Mapping):
            raise InvalidContext(f"The context must be a mapping or a TurnContext, not {type(context).__name__}.")
        named = [key for key in DEVICE_KEYS if context.get(key) is not None]
        accepted = [key for key in DEVICE_KEYS if key in device_keys]
        if not set(named) <= set(accepted):
            raise InvalidContext(
                f"{' and '.join(key for key in named if key not in accepted)} cannot name the device here, only "
                f"{', '.join(accepted)} (MOORLINE_DEVICE_KEYS)."
            )
        if not named:
            raise InvalidContext(f"The context names no device: give one of {', '.join(accepted)}.")
        device = context[named[0]]
        if not all(_alike(context[key], device) for key in named):
            raise InvalidContext(
                f"{' and '.join(named)} differ, and only one of them can be the device: give the one that you verified."
            )
        own = {named[0], "message_id", "person_id", "on_busy", "on_cancel", "timeout"}
        return cls(
            device_id=device,
            channel=context.get("channel"),
            message_id=context.get("message_id"),
            person_id=context.get("person_id"),
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
    made_up_id: bool = False
    """Whether the message came without an ID: no earlier call can then have had the same message."""
    files: tuple[File, ...] = ()
    """What came with it, until `Receiving` has received it."""
    brought: Brought = NOTHING
    """What was received."""


def check_call(
    message: Said | Resume,
    context: Mapping[str, Any] | TurnContext,
    settings: Settings,
) -> Call:
    """Raises `InvalidMessage`, `InvalidContext` or `InvalidDeviceID`; nothing has been stored by then."""
    turn = TurnContext.of(context, device_keys=settings.device_keys)
    resume = _checked(message) if isinstance(message, Resume) else None
    text, files = (_said(resume), ()) if resume is not None else parts_of(message, settings)
    checked = IncomingMessage(
        device_id=device_of(turn, settings),
        message_id=_message_id(turn.message_id, resume, required=settings.require_message_id),
        text=text if resume is not None else _text(text, needed=not files),
        resume=resume,
        values=_json(lifetime.checked(turn.values)),
        on_busy=_one_of("on_busy", turn.on_busy or settings.on_busy, get_args(OnBusy)),
        person_id=None if turn.person_id is None else _named("person_id", turn.person_id),
    )
    return Call(
        message=checked,
        timeout=_timeout(turn.timeout, settings),
        on_cancel=_one_of("on_cancel", turn.on_cancel or settings.on_cancel, get_args(OnCancel)),
        made_up_id=turn.message_id is None and resume is None,
        files=files,
    )


def stored_device_id(device_id: object, settings: Settings) -> str:
    """The ID of a device, as it is stored: with its channel, if it has one. Raises `InvalidDeviceID`."""
    uuid_only = settings.device_ids == "uuid"
    if uuid_only and isinstance(device_id, str) and CHANNEL.match(device_id):
        channel, _, own = device_id.partition(":")
        return f"{channel}:{require_device_id(own, uuid_only=True)}"
    return require_device_id(device_id, uuid_only=uuid_only)


def stored_message_id(message_id: object) -> str:
    """The ID of a message as text. Raises `InvalidContext` if it cannot be one."""
    return _named("message_id", message_id)


def device_of(turn: TurnContext, settings: Settings) -> str:
    """The ID of the device that speaks, as it is stored. Raises `InvalidDeviceID` or `InvalidContext`; also for an ID
    that only looks as if it had a channel."""
    own = require_device_id(turn.device_id, uuid_only=settings.device_ids == "uuid")
    if turn.channel is None:
        channel, colon, _ = own.partition(":")
        if colon and channel.casefold() in settings.channels:
            raise InvalidDeviceID(
                "The device ID begins like one of a channel, but the context names none: pass the name of the channel "
                "as `channel`, and the ID without it."
            )
        return own
    if not isinstance(turn.channel, str) or not CHANNEL.fullmatch(f"{turn.channel}:"):
        raise InvalidContext("channel must be 1 to 32 letters, digits, dots, hyphens or underscores.")
    return require_device_id(f"{turn.channel}:{own}")


def _named(key: str, value: object) -> str:
    """The ID of a message or person as text."""
    text = str(value) if isinstance(value, UUID) or _is_number(value) else value
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_MESSAGE_ID:
        raise InvalidContext(f"{key} must be text of 1 to {MAX_MESSAGE_ID} characters, or a whole number.")
    if SEPARATOR in text:
        raise InvalidContext(f"{key} must not contain the control character U+001F.")
    return str(text)


def _alike(one: object, other: object) -> bool:
    """Whether both are the ID of the same device."""
    try:
        return one is other or require_device_id(one) == require_device_id(other)
    except InvalidDeviceID:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**MAX_MESSAGE_ID


def _checked(resume: Resume) -> Resume:
    if not isinstance(resume.interrupt_id, str) or len(resume.interrupt_id) > MAX_MESSAGE_ID:
        raise InvalidMessage("The interrupt_id of a Resume must be the `id` of a reply's interrupt.")
    by = None if resume.by is None else _named("by", resume.by)
    try:
        return replace(resume, by=by, value=plain_json(resume.value, largest=MAX_JSON)[0])
    except ValueError as error:
        raise InvalidMessage(f"The value of a Resume must be JSON ({error}).") from error


def _said(resume: Resume) -> str:
    """A Resume's value as text, for the transcript."""
    return resume.value if isinstance(resume.value, str) else json.dumps(resume.value, ensure_ascii=False)


def _text(message: str, *, needed: bool) -> str:
    if needed and not message.strip():
        raise InvalidMessage("The message is empty; there is nothing to answer.")
    if len(message) > MAX_MESSAGE:
        raise InvalidMessage(
            f"The message has {len(message):,} characters, but only {MAX_MESSAGE:,} are allowed; send it in parts."
        )
    return whole_text(str(message))


def _message_id(message_id: object, resume: Resume | None, *, required: bool) -> str:
    if message_id is None and resume is not None:  # an answer to an interrupt is one message however often it is sent
        return f"{_ANSWER}{resume.interrupt_id}"
    if message_id is None:
        if required:
            raise InvalidContext(
                "The context has no message_id, and MOORLINE_REQUIRE_MESSAGE_ID demands one: pass the ID that your "
                "webhook gives the message, so that it is answered only once, however often it is delivered."
            )
        return str(uuid4())
    stored = stored_message_id(message_id)
    if stored.startswith(_ANSWER) and (resume is None or stored != f"{_ANSWER}{resume.interrupt_id}"):
        raise InvalidContext(
            f"A message_id must not begin with {_ANSWER!r}: such IDs belong to answers that come without one."
        )
    return stored


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values after a round trip through JSON, as a rerun of the turn gets them."""
    checked, size = {}, 0
    for name, value in values.items():
        if not isinstance(name, str):
            raise InvalidContext(f"The context's keys must be text, not {type(name).__name__}.")
        try:
            checked[whole_text(name)], own_size = plain_json(value, largest=MAX_JSON)
        except ValueError as error:
            raise InvalidContext(
                f"The context's {name!r} is not JSON ({error}); pass text, numbers, lists and mappings only."
            ) from error
        size += len(name) + own_size
    if size > MAX_JSON:
        raise InvalidContext(f"The context has {size:,} characters of JSON, but only {MAX_JSON:,} are allowed.")
    return checked


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise InvalidContext(f"{name} must be one of {', '.join(allowed)}, not {_shown(value)}.")
    return value


def _timeout(timeout: object, settings: Settings) -> float:
    if timeout is None:
        return settings.turn_timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise InvalidContext(f"timeout must be a positive number of seconds, not {_shown(timeout)}.")
    try:
        return float(timeout)
    except OverflowError:
        raise InvalidContext("timeout must be a positive number of seconds, not one of hundreds of digits.") from None


def _shown(value: object) -> str:
    """A text, or the type of anything else: not all that is sent can be printed."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__
