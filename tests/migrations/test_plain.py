"""Nothing that people, models, devices or adopted rows say does anything to a terminal or forges a line of a log."""

import unicodedata

import pytest

from moorline_migrations.errors import without_values
from moorline_migrations.plain import lines, one_line

EVERYTHING = "".join(map(chr, range(0x11_0000)))


def test_no_character_does_anything() -> None:
    shown = one_line(EVERYTHING)
    assert {unicodedata.category(each) for each in shown} & {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"} == set()
    assert {each for each in shown if unicodedata.category(each) == "Cf"} == {"\u200c", "\u200d"}
    shown.encode()
    assert set(lines(EVERYTHING)) - set(shown) == {"\n", "\t"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Grüße, 世界 👩\u200d🔧", "Grüße, 世界 👩\u200d🔧"),
        ("one\ntwo\tthree\u2028four\u00a0five", "one two three four five"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_what_it_is_shown_as(said: str, shown: str) -> None:
    assert one_line(said) == shown


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ('invalid input syntax for type uuid: "d1"', "invalid input syntax for type uuid: …"),
        ('value "4930123" is out of range for type integer', "value … is out of range for type integer"),
        ('relation "bookings" does not exist', 'relation "bookings" does not exist'),
    ],
)
def test_a_message_of_postgresql_keeps_names_and_loses_values(told: str, kept: str) -> None:
    assert without_values(told) == kept
