"""Facts as they are written: their names and bounds, and what a turn has written and not yet committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorline_checkpoint.errors import StaleTurn
from moorline_checkpoint.packing import load_json, pack_json

VALUE_BYTES = 65_536
"""The most bytes of a value, as JSON."""

NAMESPACE_BYTES = 1_024
"""The most bytes of a namespace, its labels with a full stop after each."""

KEY_BYTES = 512
"""The most bytes of a key."""

LABELS = 20
"""The most labels of a namespace."""

TURN_FACTS = 1_000
"""The most writes of one turn."""

TURN_BYTES = 1_048_576
"""The most bytes of all values that one turn writes."""

Name = tuple[str, str]
"""The namespace of a fact, as it is stored, and its key."""

Change = Mapping[str, Any]
"""A write as the database takes it, JSON: `namespace`, `key`, `value` (None: deleted) and `ttl`; or, with `read`, that
a fact was read which lives longer by that."""


def joined(labels: Sequence[str]) -> str:
    """A namespace as it is stored. Raises ValueError for one that is too long or too deep, and TypeError for one text:
    its letters would be taken for labels."""
    if isinstance(labels, str | bytes):
        raise TypeError(f"A namespace is a tuple of labels, not one text: write ({labels!r},).")
    name = "".join(f"{label}." for label in labels)
    if len(labels) > LABELS or _size(name) > NAMESPACE_BYTES:
        raise ValueError(
            f"A namespace may have {LABELS} labels and {NAMESPACE_BYTES:,} bytes; this one has {len(labels)} and "
            f"{_size(name):,}."
        )
    return name


def written(namespace: str, key: str, value: Mapping[str, Any] | None, ttl: float | None) -> Change:
    """The write of a fact. Raises ValueError or TypeError for what cannot be stored."""
    if not isinstance(key, str) or not 1 <= _size(key) <= KEY_BYTES:
        raise ValueError(f"The key of a fact must be a text of 1 to {KEY_BYTES:,} bytes.")
    if ttl is not None and not 0 < ttl < 1e9:  # noqa: PLR2004 - some 1,900 years
        raise ValueError(f"A time to live is a positive number of minutes, not {ttl!r}.")
    if value is None:
        return {"namespace": namespace, "key": key, "value": None}
    if not isinstance(value, Mapping):
        raise TypeError(f"The value of a fact must be a dict, not {type(value).__name__}.")
    packed = _packed(value)
    if len(packed) > VALUE_BYTES:
        raise ValueError(f"The value of a fact may have {VALUE_BYTES:,} bytes as JSON; this one has {len(packed):,}.")
    # As it will be read: what becomes of the writer's object is no part of it.
    return {"namespace": namespace, "key": key, "value": load_json(packed), "ttl": ttl}


def read(namespace: str, key: str) -> Change:
    """That a fact was read."""
    return {"namespace": namespace, "key": key, "read": True}


def last(changes: Iterable[Change]) -> list[Change]:
    """The last write of each fact."""
    return [change for change in in_order(changes) if "read" not in change]


def in_order(changes: Iterable[Change]) -> list[Change]:
    """That each fact was read, if it was, and the last write of it, in the order of their names: so that two statements
    about the same facts never wait for each other."""
    by_name = {(change["namespace"], change["key"], "read" not in change): change for change in changes}
    return [by_name[name] for name in sorted(by_name)]


@dataclass(kw_only=True)
class TurnFacts:
    """What an open turn has written of its conversation's facts, in order. It is committed with the turn."""

    changes: list[Change] = field(default_factory=list)
    over: bool = False
    """Whether the turn has ended, so that nothing can be written any more."""

    def add(self, changes: Sequence[Change]) -> None:
        """Writes facts. Raises ValueError if that would be too much for one turn, and StaleTurn if the turn is over;
        then nothing is written."""
        if self.over:
            raise StaleTurn("The turn in which this fact was written has ended: write facts before the tool returns.")
        new = [change for change in changes if "read" not in change or change not in self.changes]
        together = [*self.changes, *new]
        size = sum(len(_packed(change["value"])) for change in together if change.get("value"))
        if len(together) > TURN_FACTS or size > TURN_BYTES:
            raise ValueError(
                f"A turn may write {TURN_FACTS:,} facts with {TURN_BYTES:,} bytes in all; this would be "
                f"{len(together):,} with {size:,}."
            )
        self.changes.extend(new)

    def of(self, namespace: str, key: str) -> Change | None:
        """The last write of a fact."""
        for change in reversed(self.changes):
            if change["namespace"] == namespace and change["key"] == key and "read" not in change:
                return change
        return None


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def _packed(value: Mapping[str, Any]) -> str:
    try:
        return pack_json(value)
    except RecursionError:
        raise ValueError("The value of a fact is nested too deeply.") from None
