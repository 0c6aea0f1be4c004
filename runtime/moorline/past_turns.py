"""The past turns of a device, as its agents and the router are told of them."""

from __future__ import annotations

from collections.abc import Sequence

from moorline.manager import StartOver
from moorline_agents.conversation import PastTurn
from moorline_checkpoint.turn import OpenTurn
from moorline_checkpoint.turns import Turns


class PastTurns:
    """Implements `moorline_agents.conversation.Conversation` for one claimed turn: reads its transcript, if asked."""

    def __init__(self, turn: OpenTurn, *, turns: Turns, start_over: StartOver) -> None:
        self._turn = turn
        self._turns = turns
        self._start_over = start_over

    async def last(self, turns: int) -> Sequence[PastTurn]:
        if self._turn.turn_no == 1 or self._start_over.in_any([message.text for message in self._turn.messages]):
            return ()
        turn = self._turn
        entries = await self._turns.transcript(turn.device_id, before=turn.turn_no, limit=turns, rewound=False)
        past: list[PastTurn] = []
        for entry in reversed(entries):
            said = zip(entry.texts, entry.messages(), strict=True)
            texts = tuple(words for text, words in said if not self._start_over.meant_by(text))
            if texts:
                past.append(PastTurn(texts=texts, agent=entry.record.agent, reply=entry.record.reply, by=entry.by))
            if len(texts) < len(entry.texts):
                break
        return past[::-1]
