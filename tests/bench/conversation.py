"""What is said in a benchmark, the same for every contestant: a question and an answer, 160 bytes together.

An answer begins with the number of the person's messages that the model was shown, so every reply shows whether the
conversation was really kept.
"""

from __future__ import annotations

QUESTION = "Is the blue one with the long handle still there, and could I have it by Friday?"
ANSWER = "Yes, two of them are left, and if you order today it is with you on Thursday."

WINDOW = 40
"""Messages of the person that every contestant has to show a model; Moorline's agents show no more than 41."""


def answer(shown: int) -> str:
    """The answer of a model that was shown `shown` of the person's messages."""
    return f"{shown}: {ANSWER}"


def check(reply: str, turn: int) -> None:
    """Raises `ValueError` if the model was not shown the messages that it has to be shown at this turn."""
    shown, _, text = reply.partition(": ")
    if text != ANSWER or not min(turn, WINDOW) <= int(shown) <= turn:
        raise ValueError(f"turn {turn} was answered with {reply!r}: the conversation was not kept")
