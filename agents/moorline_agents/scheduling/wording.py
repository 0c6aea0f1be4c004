"""How the scheduling agent asks before it books, moves or cancels, by language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from types import MappingProxyType

from moorline_agents.questions import folded
from moorline_agents.scheduling.repository import Appointment


@dataclass(frozen=True, kw_only=True)
class Wording:
    """The questions, with `{service}`, `{provider}` and `{when}`; in `move` that is the new time, and `{before}` the
    old one. Raises `ValueError` for one that could not be asked."""

    book: str
    move: str
    cancel: str
    yes: str
    no: str
    when: str
    """A moment, with `{weekday}`, `{day}`, `{month}`, `{year}` and `{time}`."""
    weekdays: tuple[str, ...]
    """From Monday on."""
    months: tuple[str, ...]

    def __post_init__(self) -> None:
        named = dict.fromkeys(("service", "provider", "when", "before"), "?")
        try:
            texts = [text.format(**named) for text in (self.book, self.move, self.cancel)]
            self.moment(datetime(2026, 12, 27, 9, 0))
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(f"This wording names something that it does not get: {error}.") from error
        blank = [field.name for field in fields(self) if not getattr(self, field.name)]
        if blank or not all(map(folded, (*texts, self.yes, self.no))) or folded(self.yes) == folded(self.no):
            raise ValueError("Each text of a wording must say something, and yes and no must differ.")

    def moment(self, local: datetime) -> str:
        """A local time, as people say it."""
        return self.when.format(
            weekday=self.weekdays[local.weekday()],
            day=local.day,
            month=self.months[local.month - 1],
            year=local.year,
            time=f"{local:%H:%M}",
        )

    def of(self, appointment: Appointment) -> Mapping[str, str]:
        """What the questions say of an appointment."""
        local = appointment.span.start.astimezone(appointment.provider.zone)
        return {
            "service": appointment.service,
            "provider": appointment.provider.name,
            "when": self.moment(local),
        }


ENGLISH = Wording(
    book="Shall I book {service} with {provider} on {when}?",
    move="Shall I move {service} with {provider} from {before} to {when}?",
    cancel="Shall I cancel {service} with {provider} on {when}?",
    yes="yes",
    no="no",
    when="{weekday} {day} {month} {year}, {time}",
    weekdays=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    months=(
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
)

GERMAN = Wording(
    book="Soll ich {service} bei {provider} am {when} buchen?",
    move="Soll ich {service} bei {provider} von {before} auf {when} verschieben?",
    cancel="Soll ich {service} bei {provider} am {when} absagen?",
    yes="ja",
    no="nein",
    when="{weekday}, {day}. {month} {year}, {time} Uhr",
    weekdays=("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    months=(
        *("Januar", "Februar", "März", "April", "Mai", "Juni"),
        *("Juli", "August", "September", "Oktober", "November", "Dezember"),
    ),
)

WORDINGS: Mapping[str, Wording] = MappingProxyType({"en": ENGLISH, "de": GERMAN})
"""The wordings that ship, by the language's code."""

_NAMES = {"english": "en", "german": "de", "deutsch": "de"}


def wording_in(language: str | None) -> Wording:
    """The wording in a language, by its name or its code, which may name a region (`de-AT`); the English one if there
    is none."""
    name = re.split(r"[^\w]|_", (language or "").strip().casefold())[0]
    return WORDINGS.get(_NAMES.get(name, name), ENGLISH)
