"""What the tool of a contestant does that has one: it leaves a note in a table, in a transaction."""

from __future__ import annotations

TOOL = "leave_note"
NOTE = "The blue one with the long handle, by Friday."

TABLE = """
CREATE TABLE IF NOT EXISTS notes (
    note_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, device_id text NOT NULL, note text NOT NULL)
"""

COUNT = "SELECT count(*) FROM notes"
