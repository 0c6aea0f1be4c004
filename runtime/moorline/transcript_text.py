"""A transcript as text: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moorline_migrations.plain import lines, moment, one_line

if TYPE_CHECKING:
    from moorline_checkpoint.transcripts import Transcript, TranscriptEntry

_MARKS = re.compile(r"[\\`*_{}\[\]<>#&~|$]")
"""What Markdown would take for markup, anywhere in a line."""

_BEGINS = re.compile(r"^(\d*)([-+=.)])")
"""What Markdown would take for a list or a heading at the beginning of a line."""


def as_markdown(device_id: str, transcript: Transcript) -> Iterator[str]:
    """The lines of the transcript in Markdown. What people and agents have said is shown as they said it: none of it is
    taken for markup, and no character acts on a terminal."""
    yield f"# Conversation with {_escaped(one_line(device_id))}"
    for entry in transcript:
        yield ""
        rewound = ", rewound later" if entry.rewound_at else ""
        yield f"## Turn {entry.record.turn_no}, {moment(entry.committed_at)}{rewound}"
        for text in entry.messages():
            yield from _said(entry.by or "Person", text)
        yield from _said(entry.record.agent or "manager", entry.record.reply)
        if entry.changes:
            yield ""
            yield f"Session: {_escaped(one_line('; '.join(map(_change, entry.changes))))}"


def as_json(device_id: str, transcript: Transcript) -> str:
    """The transcript as a JSON object, in ASCII."""
    shown = {"device_id": device_id, "turns": [_turn(entry) for entry in transcript]}
    return json.dumps(shown, indent=2).replace("\x7f", "\\u007f")


def _turn(entry: TranscriptEntry) -> dict[str, Any]:
    record = entry.record
    return {
        "turn_no": record.turn_no,
        "message_ids": entry.message_ids,
        "texts": entry.texts,
        "files": [[asdict(file) for file in files] for files in entry.files],
        "by": entry.by,
        "agent": record.agent,
        "reply": record.reply,
        "handoffs": record.handoffs,
        "interrupt": record.interrupt,
        "changes": entry.changes,
        "output": record.output,
        "usage": dict(record.usage),
        "started_at": entry.started_at.isoformat(),
        "committed_at": entry.committed_at.isoformat(),
        "rewound_at": entry.rewound_at.isoformat() if entry.rewound_at else None,
    }


def _change(change: Mapping[str, Any]) -> str:
    """How the lock changed, in words."""
    words = str(change["why"]).replace("_", " ")
    told = [f"{name} {change[name]}" for name in ("by", "ttl", "until", "reason", "note") if name in change]
    who = f" by {change['lock']}" if change.get("lock") else ""
    return f"{words}{who} ({', '.join(told)})" if told else f"{words}{who}"


def _said(who: str, text: str) -> Iterator[str]:
    yield ""
    yield f"**{_escaped(one_line(who))}**"
    yield ""
    rows = lines(text).split("\n")
    for row, following in zip(rows, [*rows[1:], ""], strict=True):
        hard_break = "\\" if row.strip() and following.strip() else ""
        yield f"> {_escaped(row)}{hard_break}".rstrip(" ")


def _escaped(row: str) -> str:
    text = row.lstrip(" \t")
    indented = "\N{NO-BREAK SPACE}" * (len(row) - len(text))  # four spaces would begin a block of code
    return indented + _BEGINS.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", text))
