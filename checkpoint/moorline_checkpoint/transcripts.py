"""Transcripts: the committed turns of a device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moorline_checkpoint import html
from moorline_checkpoint.replica import AsOf
from moorline_checkpoint.turn import TurnRecord
from moorline_migrations.plain import moment

SHOWN = 50
"""Turns that a notebook shows of a transcript."""


@dataclass(frozen=True, kw_only=True)
class TranscriptEntry:
    """A committed turn with the texts of its messages; times are the database's."""

    texts: tuple[str, ...]
    message_ids: tuple[str, ...]
    """In the order of `texts`."""
    record: TurnRecord
    started_at: datetime
    committed_at: datetime


class Transcript(AsOf[TranscriptEntry]):
    """Turns of a device, oldest first. A notebook shows the last of them as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (
                str(entry.record.turn_no),
                moment(entry.committed_at),
                "\n".join(entry.texts),
                entry.record.agent or "manager",
                entry.record.reply,
            )
            for entry in self[-SHOWN:]
        ]
        note = f"The last {SHOWN} of {len(self):,} turns." if len(self) > SHOWN else ""
        return html.table(("turn", "when", "person", "agent", "reply"), rows, note=note)
