"""Which tool call a part of a stream belongs to, worked out from all that servers send.

By the protocol, a part has the index of its call, and the first part of a call its ID and name. Servers leave out
indexes, number all calls 0, send no IDs or changing ones, repeat or split names, or send them last. Two calls are never
taken for one, and none is made up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from moorline_agents.calls import LONGEST_ARGUMENTS, MOST_CALLS
from moorline_agents.extra_fields import ExtraFields
from moorline_agents.plain_json import whole_text

_LONGEST_NAME = 256  # far beyond what can name a tool
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPart:
    """One entry of a delta's `tool_calls`."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class StreamedCall:
    """A call as far as it has come."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.ids: list[str] = []
        self.name = ""
        self.extra = ExtraFields()
        self._pieces: list[str] = []
        self._length = 0

    @property
    def arguments(self) -> str:
        """The text of the arguments; of one that is too long, as much as shows that."""
        return whole_text("".join(self._pieces)).strip()

    @property
    def begun(self) -> bool:
        """Whether any arguments have come."""
        return any(not piece.isspace() for piece in self._pieces)

    @property
    def whole(self) -> bool:
        """Whether the arguments are a whole JSON object."""
        if not self._pieces or not self._pieces[-1].rstrip().endswith("}"):
            return False
        return _is_object(self.arguments)

    def take(self, part: CallPart, *, joins: bool) -> None:
        """Takes in a part of this call. `joins` says that its name is the next piece of the name so far."""
        if part.index is not None:
            self.index = part.index
        if part.id and part.id not in self.ids:
            self.ids.append(part.id)
        if part.name and len(self.name) <= _LONGEST_NAME:
            self.name = self.name + part.name if joins else part.name
        self.extra.add(part.extra)
        again = part.arguments.lstrip().startswith("{") and self.whole and part.arguments.strip() == self.arguments
        if part.arguments and not again and self._length <= LONGEST_ARGUMENTS:
            self._pieces.append(part.arguments)
            self._length += len(part.arguments)

    def apart(self) -> list[str]:
        """The arguments of each call in this one: a server may write two objects one after the other, and some write
        an empty one before the real one."""
        text = self.arguments
        if self._length > LONGEST_ARGUMENTS or text.count("{") <= 1 or _is_object(text):
            return [text]
        objects = _objects(text)
        if not all(map(_is_object, objects)):
            return [text]
        return [each for each in objects[:-1] if each != "{}"] + objects[-1:]


class StreamedCalls:
    """Takes the calls of one answer, part by part. `tools` are the names of the tools that were offered."""

    def __init__(self, tools: AbstractSet[str]) -> None:
        self.calls: list[StreamedCall] = []
        """The calls in the order in which they began; of more than may be made, as many as show that."""
        self._tools = tools
        self._last: list[StreamedCall] = []
        """The calls of the last delta that had any, in its order."""

    def add(self, parts: Sequence[CallPart]) -> None:
        """Takes the entries of one delta. They belong to different calls."""
        taken: list[StreamedCall] = []
        for position, part in enumerate(parts):
            call = self._candidate(part, taken, position=position if len(parts) > 1 else None)
            if call is None or self._begins(part, call, apart=call in taken):
                call = self._new(part.index)
            call.take(part, joins=self._joins(call, part))
            taken.append(call)
        self._last = taken or self._last

    def _candidate(self, part: CallPart, taken: Sequence[StreamedCall], *, position: int | None) -> StreamedCall | None:
        """The call that the part goes on with, if it begins none."""
        named = [call for call in self.calls if part.id in call.ids] if part.id else []
        # Entries of one delta go on with those of the delta before in the same order.
        here = self._last[position : position + 1] if position is not None else []
        follows = [call for call in here if call not in taken]
        if part.index is None:
            return next(iter((*named[-1:], *follows, *self.calls[-1:])), None)
        numbered = [call for call in self.calls if call.index == part.index]
        if numbered:
            likely = (*reversed(named), *follows, numbered[-1])
            return next(call for call in likely if call in numbered)
        if part.name or part.id:
            # A number of its own is a call of its own, unless what it holds cannot be the beginning of one.
            middle = not part.name and part.arguments.lstrip()[:1] not in ("", "{")
            return named[-1] if named and middle else None
        return next((call for call in self.calls[-1:] if call.index is None), None)

    def _begins(self, part: CallPart, call: StreamedCall, *, apart: bool) -> bool:
        """Whether the part begins a call of its own rather than going on with `call`. `apart` says that the same delta
        has a part of that already."""
        other_id = bool(part.id and call.ids and part.id not in call.ids)
        if apart and (part.name or other_id):
            return True
        own_arguments = bool(part.arguments.strip())
        if not part.name:
            # A new ID alone goes on with the call, unless that has all it needs.
            return other_id and own_arguments and bool(call.name) and call.whole
        if not call.name:
            return own_arguments and call.whole and part.arguments.strip() != call.arguments
        if self._joins(call, part):
            return False
        return self._is_another(part, call, other_id=other_id)

    def _is_another(self, part: CallPart, call: StreamedCall, *, other_id: bool) -> bool:
        """Whether the part's name, which is no piece of the call's, is another call's."""
        same_name = part.name == call.name
        if not call.begun:
            return other_id or not (same_name or self._grows(call, part))
        if not call.whole:
            return not same_name
        if not same_name or other_id:
            return True
        if call.ids and part.arguments.strip() in ("", call.arguments):
            return False  # the server says it all again
        # With the same ID, an empty object stood for arguments that were still to come.
        return not (part.id and call.arguments == "{}")

    def _joins(self, call: StreamedCall, part: CallPart) -> bool:
        """Whether the part's name is the next piece of the call's."""
        if not call.name or not part.name or call.begun:
            return False
        if self._leads(call.name + part.name):
            return not (call.name in self._tools and part.name in self._tools)
        if part.id and part.id not in call.ids:
            return False
        # A name that no tool has may come in pieces, too; a tool's name is no piece of it.
        return self._tools.isdisjoint((call.name, part.name)) and not part.name.startswith(call.name)

    def _grows(self, call: StreamedCall, part: CallPart) -> bool:
        """Whether the part has the call's name with more of it."""
        return part.name.startswith(call.name) and call.name not in self._tools

    def _leads(self, name: str) -> bool:
        return any(tool.startswith(name) for tool in self._tools)

    def _new(self, index: int | None) -> StreamedCall:
        call = StreamedCall(index)
        if len(self.calls) > MOST_CALLS:
            self.calls[-1] = call
        else:
            self.calls.append(call)
        return call


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False


def _objects(text: str) -> list[str]:
    """The texts of the objects and lists that stand one after the other, cut where one ends."""
    objects: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0 and token[0] in "}]":
            objects.append(text[start : token.end()].strip())
            start = token.end()
    return [*objects, rest] if (rest := text[start:].strip()) else objects
