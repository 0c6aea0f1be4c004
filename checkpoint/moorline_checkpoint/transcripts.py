"""Transcripts: the committed turns of a device."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from moorline_checkpoint import html
from moorline_checkpoint.claims import record_in
from moorline_checkpoint.files import FileRef, unpack_message
from moorline_checkpoint.packing import load_json, unpack_text
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
    files: tuple[tuple[FileRef, ...], ...] = ()
    """The files of each message, in the order of `texts`; empty if none had any."""
    rewound_at: datetime | None = None
    """When the conversation was rewound to an earlier turn, so that it goes on as if this one had not been."""
    changes: tuple[Mapping[str, Any], ...] = ()
    """How the turn changed the lock, as `OpenTurn.changes` has it."""
    by: str | None = None
    """Who gave the answer that the turn began with, if it was somebody else than the person (`Resume(…, by="Eva")`)."""

    def messages(self) -> Iterator[str]:
        """What the person sent: the texts, each with its files in words."""
        for text, files in zip(self.texts, self.files or ((),) * len(self.texts), strict=True):
            yield "\n".join(filter(None, (text, *map(str, files)))) if files else text


def entry_in(row: Mapping[str, Any]) -> TranscriptEntry:
    """The turn that a row holds."""
    said = [unpack_message(stored) for stored in row["texts"]]
    files = tuple(files for _, files in said)
    return TranscriptEntry(
        texts=tuple(text for text, _ in said),
        files=files if any(files) else (),
        message_ids=tuple(map(unpack_text, row["message_ids"])),
        by=None if row["by"] is None else unpack_text(row["by"]),
        changes=tuple(load_json(row["changes"] or "[]")),
        record=record_in(
            {**row, "usage": json.loads(row["usage"]), "interrupt": json.loads(row["interrupt"] or "null")}
        ),
        started_at=row["started_at"],
        committed_at=row["committed_at"],
        rewound_at=row["rewound_at"],
    )


class Transcript(AsOf[TranscriptEntry]):
    """Turns of a device, oldest first. A notebook shows the last of them as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (
                str(entry.record.turn_no),
                moment(entry.committed_at) + (" (rewound)" if entry.rewound_at else ""),
                "\n".join(entry.messages() if entry.by is None else (f"{entry.by}:", *entry.messages())),
                entry.record.agent or "manager",
                entry.record.reply,
            )
            for entry in self[-SHOWN:]
        ]
        note = f"The last {SHOWN} of {len(self):,} turns." if len(self) > SHOWN else ""
        return html.table(("turn", "when", "person", "agent", "reply"), rows, note=note)
