"""What is said in a benchmark, the same for everybody: a person's question and a model's answer, 160 bytes together.

An answer begins with the number of the person's messages that the model was shown. So every reply tells whether what
was said before was really kept.
"""

from __future__ import annotations

QUESTION = "Is the blue one with the long handle still there, and could I have it by Friday?"
ANSWER = "Yes, two of them are left, and if you order today it is with you on Thursday."

WINDOW = 40
"""Messages of the person that everybody has to show a model; Moorline's agents show no more than 41."""


def answer(shown: int) -> str:
    """What a model says that was shown so many of the person's messages."""
    return f"{shown}: {ANSWER}"


def check(reply: str, turn: int) -> None:
    """Raises `ValueError` if the model was not shown what was said in a conversation of so many turns."""
    shown, _, text = reply.partition(": ")
    if text != ANSWER or not min(turn, WINDOW) <= int(shown) <= turn:
        raise ValueError(f"turn {turn} was answered with {reply!r}: the conversation was not kept")
