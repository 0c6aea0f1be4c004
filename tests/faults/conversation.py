"""What a device's committed turns say, derived from the rows: which agents took part, and what each should have
read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tests.faults.history import Event
from tests.faults.model import Read, digest, ends_session, routed
from tests.faults.recorded import Recorded, Turn

Entries = tuple[tuple[str, str], ...]
"""For each message its ID and the digest of the agent's own answer to it."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A committed turn with its messages."""

    turn: Turn
    messages: tuple[str, ...]
    texts: tuple[str, ...]
    read: Read | None
    """None if the reply is not one of the model's."""
    holder: str | None
    """The agent to which the turns before it left the lock. A rerun after an effect takes the route of its first run,
    so for it the turns before that run count."""
    agents: tuple[str, ...]
    """The agents that took part, in order."""
    known: Entries
    """What the answering agent knew when the turn began."""

    @property
    def leaves(self) -> str | None:
        """The agent to which it leaves the lock."""
        return None if ends_session(self.texts[-1]) else self.turn.agent


def conversations(recorded: Recorded) -> Mapping[str, Sequence[Said]]:
    """By device, its turns in order. A turn without messages is left out; another invariant reports it."""
    messages = defaultdict(list)
    for row in recorded.messages:
        messages[row.device, row.turn_no].append(row)
    devices: dict[str, list[Said]] = defaultdict(list)
    knowledge: dict[tuple[str, str], Entries] = defaultdict(tuple)
    effects: dict[tuple[str, str], int] = {}
    for effect in recorded.effects:
        key = effect.device, effect.message
        effects[key] = min(effect.fence, effects.get(key, effect.fence))
    for turn in sorted(recorded.turns, key=lambda turn: (turn.device, turn.turn_no)):
        rows = messages[turn.device, turn.turn_no]
        if not rows:
            continue
        said = devices[turn.device]
        fence = effects.get((turn.device, rows[0].message), turn.fence)
        holder = next((earlier.leaves for earlier in reversed(said) if earlier.turn.fence < fence), None)
        agents = (holder or routed(rows[-1].text), *turn.handoffs)
        said.append(
            Said(
                turn=turn,
                messages=tuple(row.message for row in rows),
                texts=tuple(row.text for row in rows),
                read=read_of(turn.reply),
                holder=holder,
                agents=agents,
                known=knowledge[turn.device, agents[-1]],
            )
        )
        for agent in agents:
            answer = digest(turn.reply) if agent == turn.agent else ""
            entries = [(row.message, "") for row in rows[:-1]] + [(rows[-1].message, answer)]
            knowledge[turn.device, agent] += tuple(entries)
    return devices


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """When a device was erased, on the logs' clock: what was finished before `began` is gone."""

    began: float
    ended: float
    """Infinite if it was not acknowledged."""


def erasures(recorded: Recorded) -> Mapping[str, Sequence[Erasure]]:
    """By device, in order."""
    found: dict[str, list[Erasure]] = defaultdict(list)
    for event in recorded.events:
        if event.event == "erase":
            ended = next((e.at for e in recorded.events if _ends(e, event)), inf)
            found[event.device].append(Erasure(began=event.at, ended=ended))
    return found


def read_of(reply: str) -> Read | None:
    """What a reply says; None if it is not one of the model's."""
    try:
        return Read.of(reply)
    except (ValueError, KeyError, TypeError):
        return None


def _ends(event: Event, erase: Event) -> bool:
    return (
        event.event == "erased"
        and (event.worker, event.device) == (erase.worker, erase.device)
        and (event.at >= erase.at)
    )
