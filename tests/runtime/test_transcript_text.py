"""A transcript as Markdown shows what was said as it was said, and as JSON gives it whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from moorline.transcript_text import as_json, as_markdown
from moorline_checkpoint.transcripts import Transcript, TranscriptEntry
from moorline_checkpoint.turn import TurnRecord
from moorline_migrations.plain import lines

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARKUP = "\\`*_{}[]<>#&~|$-+=.)(!:/'\"19 \t\na"


def transcript(text: str) -> Transcript:
    record = TurnRecord(turn_no=1, agent="hair", reply=text, handoffs=(), usage={}, interrupt=None)
    entry = TranscriptEntry(texts=(text,), message_ids=("m1",), record=record, started_at=MOMENT, committed_at=MOMENT)
    return Transcript([entry])


class Shown(HTMLParser):
    """The texts of the quotes of a page, and the names of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.quotes: list[str] = []
        self.names: set[str] = set()
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.names.add(tag)
        if tag == "blockquote":
            self.quotes.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "blockquote":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.quotes[-1] += data


def words(text: str) -> str:
    return "\n".join(" ".join(row.split()) for row in text.splitlines() if row.strip())


@example("<script>alert(1)</script> [x](javascript:alert(1)) ![](http://x/y.png)")
@example("1. one\n2) two\n- three\n+ four\n# five\n===\n---\n    code\n```\nfence\n```")
@example("a\n=\nb\n | - | - |\n\n> quote\n&amp; <b>bold</b> **bold** __bold__ ~~gone~~")
@settings(max_examples=150, deadline=None)
@given(st.text(MARKUP, min_size=1, max_size=60).filter(str.strip))
def test_markdown_shows_what_was_said(text: str) -> None:
    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable(["table", "strikethrough"])
        .render("\n".join(as_markdown("d1", transcript(text))))
    )
    shown = Shown(page)
    assert [words(quote) for quote in shown.quotes] == [words(text), words(text)]
    assert shown.names <= {"h1", "h2", "p", "strong", "blockquote", "br"}


def test_nothing_that_was_said_acts_on_a_terminal() -> None:
    hostile = "\x1b]0;title\x07 \u202eevil\x9b31m"
    shown = "\n".join(as_markdown("d\x1b1", transcript(hostile)))
    assert lines(shown) == shown
    written = as_json("d\x1b1", transcript(hostile + "\x7f"))
    assert all(" " <= each <= "~" or each == "\n" for each in written)
    assert json.loads(written)["turns"][0]["reply"] == hostile + "\x7f"


def test_json_has_all_of_a_turn() -> None:
    assert json.loads(as_json("d1", transcript("hello"))) == {
        "device_id": "d1",
        "turns": [
            {
                "turn_no": 1, "message_ids": ["m1"], "texts": ["hello"], "files": [], "by": None, "agent": "hair",
                "reply": "hello", "handoffs": [], "interrupt": None, "changes": [], "output": None, "usage": {},
                "started_at": "2026-03-01T12:00:00+00:00", "committed_at": "2026-03-01T12:00:00+00:00",
                "rewound_at": None,
            }
        ],
    }  # fmt: skip
