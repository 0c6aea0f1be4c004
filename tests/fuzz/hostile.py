"""Values that nobody expects: what a person, a device, a server or another program may send or store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from moorline import Resume

DEVICE_KEYS = ("device_id", "user_id", "wa_id", "session_id")
OWN_KEYS = (*DEVICE_KEYS, "channel", "message_id", "on_busy", "on_cancel", "timeout")

anything_in_text = st.text(st.characters(exclude_categories=()), max_size=40)
"""Any code points: NULs, halves of characters, direction marks, escapes of terminals."""

texts = st.one_of(
    anything_in_text,
    st.sampled_from(
        ["", " ", "start over", "x" * 100_001, "\ud83d", "\ud83d\ude00", "\0", "\x1b]0;x\a", "\u202e", "[/x]"]
    ),
)
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**400, 2**63, -1, 0, True, float("nan"), float("inf")])
)
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
foreign = st.sampled_from(
    [b"bytes", date(2030, 1, 2), datetime.now(UTC), Decimal(1), object(), {1, 2}, len, Exception()]
)


@dataclass(frozen=True)
class Nested:
    """Stands for lists and mappings in each other, so deep that Hypothesis could not print them."""

    levels: int

    def value(self) -> Any:
        value: Any = 1
        for number in range(self.levels):
            value = [value] if number % 2 else {"x": value}
        return value


def real(value: Any) -> Any:
    """The value with what `Nested` stands for."""
    match value:
        case Nested():
            return value.value()
        case list():
            return [real(inner) for inner in value]
        case dict():
            return {key: real(inner) for key, inner in value.items()}
        case Resume():
            return Resume(interrupt_id=real(value.interrupt_id), value=real(value.value))
        case _:
            return value


deep = st.sampled_from([60, 64, 65, 600, 900, 5_000]).map(Nested)
json_values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
values = st.one_of(json_values, deep, foreign)

ids = st.one_of(
    st.sampled_from(
        ["d1", "D1", "web:d1", "whatsapp:1", "0F8FAD5B-D9CB-469F-A165-70867728950E", "{0f8fad5b}", "a b", ""]
    ),
    texts,
    values,
)
messages = st.one_of(texts, st.builds(Resume, interrupt_id=st.one_of(texts, values), value=values), values)


@st.composite
def contexts(draw: st.DrawFn) -> Any:
    """Mostly mappings that name a device."""
    if draw(st.integers(0, 20)) == 0:
        return draw(values)
    context: dict[Any, Any] = draw(st.dictionaries(st.one_of(texts, st.integers()), values, max_size=3))
    context |= draw(st.dictionaries(st.sampled_from(OWN_KEYS), values, max_size=3))
    for key in draw(st.lists(st.sampled_from(DEVICE_KEYS), max_size=2)):
        context[key] = draw(ids)
    if draw(st.booleans()):
        context = {"device_id": "d1"} | {key: value for key, value in context.items() if key not in DEVICE_KEYS}
    return context
