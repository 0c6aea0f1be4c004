"""Plain text: what people, models, devices and adopted rows say, as a terminal and a log line can show it.

Whatever such a text holds, it does not move the cursor, set a colour or a title, write into the clipboard, begin a line
of its own or turn the direction of writing around: each such character is shown as an escape.
"""

from datetime import datetime

_JOINERS = "\u200c\u200d"
"""Invisible, but harmless, and needed: they make up emojis and letters."""


def one_line(text: str) -> str:
    """The text on one line: white space is a space."""
    return text if text.isprintable() else "".join(map(_shown, text))


def lines(text: str) -> str:
    """The text with its line feeds and tabs."""
    return text if text.isprintable() else "".join(each if each in "\n\t" else _shown(each) for each in text)


def moment(time: datetime) -> str:
    """A time to the second, with its zone."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}"


def _shown(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if character.isspace():
        return " "
    return character.encode("unicode_escape").decode("ascii")
