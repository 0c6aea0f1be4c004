"""What two graphs made of the same conversation, compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from .conversations import Step
from .playing import Played


def differences(steps: Sequence[Step], before: Played, flat: Played) -> Iterator[str]:
    """In words, what is not the same, step by step."""
    for place, (step, one, other) in enumerate(zip(steps, before.steps, flat.steps, strict=True)):
        for what in one:
            yield from _difference(f"step {place}, {what} of {step}", one[what], other[what])
    for place, (one, other) in enumerate(zip_longest(before.shown, flat.shown)):
        yield from _difference(f"what was shown at call {place}", one, other)
    yield from _difference("what was done", before.did, flat.did)
    for place, (one, other) in enumerate(zip_longest(before.transcript, flat.transcript)):
        yield from _difference(f"turn {place + 1} of the transcript", one, other)


def _difference(what: str, before: Any, flat: Any) -> Iterator[str]:
    one, other = (json.dumps(value, default=str) for value in (before, flat))
    if one != other:
        yield f"{what}:\n  before {one}\n  flat   {other}"
