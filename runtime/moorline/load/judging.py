"""Judging a load test: what each reply, and what is stored, says about messages that were lost, mixed up or doubled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from moorline.load.conversations import marks_in
from moorline.load.delivering import Delivery
from moorline.load.echo import AGENTS, agent_of
from moorline.load.targets import StoredTurn
from moorline_agents.window import LEAST_MESSAGES


@dataclass(frozen=True)
class Verdict:
    """What went wrong: the IDs of the messages, each with what was seen of it first."""

    lost: Mapping[str, str] = field(default_factory=dict)
    """Given up, or answered and not stored, or forgotten: later on the model was not shown them."""
    mixed: Mapping[str, str] = field(default_factory=dict)
    """Answered with words of another device or another message, out of order, or by the wrong agent."""
    duplicated: Mapping[str, str] = field(default_factory=dict)
    """Answered in two different ways, stored twice, or shown to the model twice."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.mixed or self.duplicated)


def judge(deliveries: Iterable[Delivery], transcripts: Mapping[str, Sequence[StoredTurn]]) -> Verdict:
    """Compares what was said with what was answered and what is stored. `transcripts` are by device ID."""
    verdict = _Verdict()
    stored = {device: _by_message(turns) for device, turns in transcripts.items()}
    owner: dict[str, str] = {}
    for delivery in deliveries:
        owner[delivery.message.id] = delivery.message.device_id
        verdict.delivery(delivery, stored[delivery.message.device_id].get(delivery.message.id, []))
    for device, turns in transcripts.items():
        verdict.conversation(device, turns, owner)
    return Verdict(verdict.lost, verdict.mixed, verdict.duplicated)


def _by_message(turns: Sequence[StoredTurn]) -> dict[str, list[tuple[StoredTurn, str]]]:
    found: dict[str, list[tuple[StoredTurn, str]]] = {}
    for turn in turns:
        for message_id, text in zip(turn.message_ids, turn.texts, strict=True):
            found.setdefault(message_id, []).append((turn, text))
    return found


class _Verdict:
    def __init__(self) -> None:
        self.lost: dict[str, str] = {}
        self.mixed: dict[str, str] = {}
        self.duplicated: dict[str, str] = {}

    def delivery(self, delivery: Delivery, stored: Sequence[tuple[StoredTurn, str]]) -> None:
        """What was sent and answered, against what is stored of it."""
        message, replies = delivery.message, {answer.text for answer in delivery.answers}
        if delivery.error is not None:
            _note(self.lost, message.id, f"given up: {type(delivery.error).__name__}: {delivery.error}")
        if replies and not stored:
            _note(self.lost, message.id, "answered, but no turn of it is stored")
        if len(replies) > 1:
            _note(self.duplicated, message.id, f"answered in {len(replies)} different ways")
        if len(stored) > 1:
            _note(self.duplicated, message.id, f"stored in {len(stored)} turns")
        if stored and replies - {turn.reply for turn, _ in stored}:
            _note(self.mixed, message.id, "the reply that came is not the one that is stored")
        if any(text != message.text for _, text in stored):
            _note(self.mixed, message.id, "stored with another text")

    def conversation(self, device: str, turns: Sequence[StoredTurn], owner: Mapping[str, str]) -> None:
        """What each turn's model was shown, against what had been said by then."""
        places: dict[str, int] = {}
        for turn in turns:
            for mark in turn.message_ids:
                places.setdefault(mark, len(places))
            shown = marks_in(turn.reply)
            if foreign := [mark for mark in shown if owner.get(mark) != device]:
                self._mixed(turn, f"the reply holds {foreign[0]} of another device")
            if turn.agent in AGENTS:
                if turn.agent != agent_of(turns[0].message_ids[-1]):
                    self._mixed(turn, f"answered by {turn.agent}, which does not hold the session")
                self._echo(turn, shown, places)

    def _echo(self, turn: StoredTurn, shown: Sequence[str], places: dict[str, int]) -> None:
        for mark, times in Counter(shown).items():
            if times > 1:
                _note(self.duplicated, mark, f"shown to the model {times} times")
        # The messages that are being answered, and those before them that a model is always shown.
        due = islice(reversed(places), LEAST_MESSAGES // 2 + len(turn.message_ids))
        for mark in set(due) - set(shown):
            _note(self.lost, mark, f"forgotten when {turn.message_ids[-1]} was answered")
        known = [places.get(mark, len(places)) for mark in shown]
        if known != sorted(known) or len(places) in known:
            self._mixed(turn, "the model was shown messages out of order, or before their turn")

    def _mixed(self, turn: StoredTurn, what: str) -> None:
        _note(self.mixed, turn.message_ids[-1], what)


def _note(kind: dict[str, str], message_id: str, what: str) -> None:
    kind.setdefault(message_id, what)
