"""The state of a conversation about appointments, derived each time from everything said in it."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from moorline_agents.rehearsal.clock import Clock
from moorline_agents.rehearsal.conversation import Answer
from moorline_agents.rehearsal.dates import When, find_when
from moorline_agents.rehearsal.intents import Intent, Tone, about_appointments, read
from moorline_agents.rehearsal.unread import still_unread, unread
from moorline_agents.rehearsal.visits import offers_of, services_of, visit_of, visits_of
from moorline_agents.rehearsal.words import LONGEST, named, person

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from moorline_agents.rehearsal.conversation import Result
    from moorline_agents.rehearsal.intents import Said
    from moorline_agents.rehearsal.visits import Offer, Service, Visit

_T = TypeVar("_T")

UNSURE = "I am not sure that I understood all of that."
"""How the agent begins when it asks before it acts."""

NOT_CONFIRMED = "not_confirmed"
"""The code of a change to which the person said no when they were asked."""

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_ORDINAL = re.compile(
    rf"\b(?:(?P<word>{'|'.join(_ORDINALS)}|last|latest|earlier|earliest|later)(?! (?:available|free|possible))"
    r"|(?:number|option) (?P<number>\d)|(?P<digit>\d)(?:st|nd|rd|th) (?:one|option|slot|time))\b"
)
_TARGET = re.compile(r"^(?P<about>.*)\b(?:to|for|until|till|instead)\b(?P<target>.*)$")
_IT = re.compile(r"\b(?:it|that|this|same)\b")
_OF_MINE = re.compile(r"\bmy\b|\bappointments?\b|\bbookings?\b")
_REFERENCE = re.compile(r"\b(?=[a-f]*\d)[0-9a-f]{8}\b")
_GOALS = frozenset({Intent.BOOK, Intent.FIND, Intent.MOVE, Intent.CANCEL})
_BOOKING = frozenset({Intent.BOOK, Intent.FIND})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the person wants done, and what they have said about it so far."""

    goal: Intent
    texts: tuple[str, ...] = ()
    when: When = field(default_factory=When)
    """The time they want."""
    about: When = field(default_factory=When)
    """What they said about the time of the existing appointment that they mean."""
    place: int | None = None
    """Which appointment in a list they mean."""
    offer: Offer | None = None
    """The offered time they chose."""
    agreed: bool = False
    """Whether the last message said yes to the question."""
    unread: tuple[str, ...] = ()
    """Words that were not understood, and may matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """What is known from everything said so far. Each step gives a new one."""

    now: datetime | None
    said: Said = field(default_factory=lambda: read(""))
    """The person's last message."""
    when: When = field(default_factory=When)
    """The day and time that this message names."""
    wish: Wish | None = None
    services: tuple[Service, ...] | None = None
    """None until a tool has returned them; the same goes for the next two."""
    visits: tuple[Visit, ...] | None = None
    offers: tuple[Offer, ...] = ()
    last_reference: str | None = None
    """The reference of the appointment that was booked or moved last."""
    asked: bool = False
    """Whether the agent asked last if it had understood."""

    @property
    def declines(self) -> bool:
        """Whether the last message says no or goodbye and asks for nothing."""
        said = self.said
        if said.intent is not None or said.visit or said.treatment:
            return False
        return Tone.FAREWELL in said.tones or (Tone.NO in said.tones and not self.when and _place(said.text) is None)

    @property
    def answers(self) -> bool:
        """Whether the last message says anything that adds to a wish."""
        services = self.services or ()
        providers = [name for service in services for name in service.providers]
        return bool(
            self.when
            or _place(self.said.text) is not None
            or named(self.said.text, [service.name for service in services])
            or person(self.said.text, providers)
        )

    def heard(self, text: str) -> Dialogue:
        """The dialogue after the person said `text`."""
        said = read(text)
        when = find_when(said.text, self.now) if self.now else When()
        place = _place(said.text)
        here = replace(self, said=said, when=when)
        if here.declines or Tone.NEVER_MIND in said.tones:
            return replace(here, wish=None, offers=(), visits=None)
        wish = here._wish(said)
        if wish is None or (said.off_topic and not about_appointments(said)):
            return here
        agreed = Tone.YES in said.tones and self.wish is not None
        wish = replace(wish, texts=(*wish.texts, said.text), agreed=agreed)
        if wish is not self.wish and (self.wish is None or wish.goal is not self.wish.goal):
            here = replace(here, visits=None)
        wish = here._detailed(wish, said, when, place)
        new = here._unread(wish, len(text) > LONGEST)
        settled = wish.offer is not None or (when.day and when.clock.at) or (agreed and self.asked)
        return replace(here, wish=replace(wish, unread=new if settled else (*wish.unread, *new)), asked=False)

    def _unread(self, wish: Wish, cut_off: bool) -> tuple[str, ...]:
        """The words of the last message that were not understood."""
        rest = self.when.rest
        if self._two_times(wish):
            about, target = self._split(self.said.text)
            rest = f"{about.rest} {target.rest}"
        if wish.offer is not None or wish.goal not in _BOOKING:
            rest = _ORDINAL.sub(" ", rest)
        words = unread(rest, cancels=wish.goal is Intent.CANCEL)
        return (*words, "…") if cut_off else words

    def doubts(self) -> bool:
        """Whether more was said about the wish than was understood."""
        services, visits = self.services or (), self.visits or ()
        words = self.wish.unread if self.wish else ()
        things = [*(service.name for service in services), *(visit.service for visit in visits)]
        people = [*(name for service in services for name in service.providers), *(visit.provider for visit in visits)]
        return bool(still_unread(words, services=things, people=people))

    def learned(self, result: Result) -> Dialogue:
        """The dialogue after a tool returned `result`."""
        if result.error is not None:
            return self._refused(result)
        learned = self
        match result.tool:
            case "find_slots" if "services" in result.content:
                learned = replace(self, services=services_of(result.content))
            case "find_slots":
                learned = replace(self, offers=offers_of(result.content))
            case "list_appointments":
                visits = visits_of(result.content)
                done = not visits and self.wish is not None and self.wish.goal not in _BOOKING
                learned = replace(self, visits=visits, wish=None if done else self.wish)
            case "book" | "move" | "cancel":
                reference = visit_of(result.content["appointment"]).reference
                learned = self._done(last_reference=None if result.tool == "cancel" else reference)
            case "end_session":
                learned = self._done(last_reference=self.last_reference)
        return learned

    def candidates(self) -> tuple[Visit, ...]:
        """The appointments that the wish may mean; all of them if nothing was said about which."""
        wish, visits = self.wish, self.visits or ()
        if wish is None:
            return visits
        text = " ".join(wish.texts)
        if references := _REFERENCE.findall(text):
            return tuple(visit for visit in visits if visit.reference in references)
        if wish.place is not None:
            return _at(visits, wish.place)
        service = self._service_meant(wish, visits)
        provider = person(text, [visit.provider for visit in visits]) if wish.goal is Intent.CANCEL else None
        meant = tuple(
            visit
            for visit in visits
            if service in (None, visit.service)
            and provider in (None, visit.provider)
            and wish.about.day in (None, visit.local.date())
            and _fits(wish.about.clock, visit)
        )
        last = tuple(visit for visit in meant if visit.reference == self.last_reference)
        return last if last and len(meant) > 1 and _IT.search(wish.texts[0]) else meant

    def _service_meant(self, wish: Wish, visits: tuple[Visit, ...]) -> str | None:
        """The service of the appointment that is meant; "" for an unknown one, None if none was named."""
        known = [visit.service for visit in visits] + [service.name for service in self.services or ()]
        unknown = any(read(text).treatment for text in wish.texts)
        return _latest(wish.texts, known) or ("" if unknown else None)

    def service(self) -> Service | None:
        """The service to book: the one that was named, or the only one there is."""
        services = self.services or ()
        name = _latest(self.wish.texts if self.wish else (), [service.name for service in services])
        if name is None and len(services) == 1:
            return services[0]
        return next((service for service in services if service.name == name), None)

    def provider(self) -> str | None:
        """The provider whom the person named."""
        names = [name for service in self.services or () for name in service.providers]
        for text in reversed(self.wish.texts if self.wish else ()):
            if found := person(text, names):
                return found
        return None

    def _wish(self, said: Said) -> Wish | None:
        """The open wish, or the one that this message begins; None if there is neither."""
        goal, wish = said.intent, self.wish
        if wish is not None:
            adjusts = goal is Intent.MOVE and wish.goal in _BOOKING and not _OF_MINE.search(said.text)
            looks = goal is Intent.FIND and wish.goal is Intent.MOVE
            if goal not in _GOALS or goal is wish.goal or adjusts or looks:
                return wish
            if goal in _BOOKING and wish.goal in _BOOKING:
                return replace(wish, goal=goal)
        if goal in _GOALS:
            return Wish(goal=goal)
        if goal is not None:
            return None
        agrees = Tone.YES in said.tones and Tone.THANKS not in said.tones
        if about_appointments(said) or agrees or self._names_service(said):
            return Wish(goal=Intent.BOOK)
        return None

    def _names_service(self, said: Said) -> bool:
        return named(said.text, [service.name for service in self.services or ()]) is not None

    def _detailed(self, wish: Wish, said: Said, when: When, place: int | None) -> Wish:
        if wish.goal is Intent.CANCEL:
            return replace(wish, about=wish.about.then(when), place=wish.place if place is None else place)
        if self._two_times(wish):
            about, target = self._split(said.text)
            place = wish.place if place is None else place
            return replace(wish, about=wish.about.then(about), when=wish.when.then(target), place=place)
        offer = None if said.intent is Intent.FIND else self._chosen(wish, when, place)
        decided = offer is not None or (when.clock.at is not None and said.intent is None and not said.question)
        if wish.goal is Intent.FIND and decided:
            wish = replace(wish, goal=Intent.BOOK)
        if offer is not None:
            return replace(wish, offer=offer)
        days = {each.local.date() for each in self.offers}
        if when.clock.at and when.day is None and wish.when.day is None and len(days) == 1:
            when = replace(when, day=days.pop())
        return replace(wish, when=wish.when.then(when), offer=None)

    def _two_times(self, wish: Wish) -> bool:
        """Whether a message may name the time of the appointment that is moved, as well as its new time."""
        return wish.goal is Intent.MOVE and (self.visits is None or len(self.candidates()) != 1)

    def _split(self, text: str) -> tuple[When, When]:
        """The time of the appointment to be moved, and its new time."""
        if self.now is None:
            return When(), When()
        match = _TARGET.match(text)
        target = find_when(match["target"], self.now) if match else When()
        if match and target:
            return find_when(match["about"], self.now), target
        return find_when(text, self.now), When()

    def _chosen(self, wish: Wish, when: When, place: int | None) -> Offer | None:
        if place is not None:
            return next(iter(_at(self.offers, place)), None)
        if when.soonest and self.offers:
            return self.offers[0]
        if when.clock.at is not None:
            return next(
                (
                    offer
                    for offer in self.offers
                    if offer.local.time() == when.clock.at and when.day in (None, offer.local.date())
                ),
                None,
            )
        return self.offers[0] if wish.agreed and not when and len(self.offers) == 1 else None

    def _refused(self, result: Result) -> Dialogue:
        if result.code == NOT_CONFIRMED and result.tool != "book":
            return replace(self, wish=None, offers=(), visits=None)
        offers = offers_of(result.content)
        wish = self.wish
        if wish is not None:
            wish = replace(wish, offer=None, when=replace(wish.when, clock=Clock(), soonest=False))
        return replace(self, wish=wish, offers=offers, visits=visits_of(result.content) or self.visits)

    def _done(self, *, last_reference: str | None) -> Dialogue:
        return replace(self, wish=None, offers=(), visits=None, last_reference=last_reference)


def dialogue_of(events: Iterable[str | Result | Answer], now: datetime | None) -> Dialogue:
    """The state of the conversation after `events`."""
    dialogue = Dialogue(now=now)
    for event in events:
        if isinstance(event, str):
            dialogue = dialogue.heard(event)
            continue
        if isinstance(event, Answer):
            dialogue = replace(dialogue, asked=event.text.startswith(UNSURE))
            continue
        # A stored result of an earlier version, whose tools returned another shape, is skipped.
        with suppress(LookupError, TypeError, ValueError):
            dialogue = dialogue.learned(event)
    return dialogue


def _place(text: str) -> int | None:
    """Which item of a list the text means: 0 is the first, -1 the last."""
    match = _ORDINAL.search(text)
    if match is None:
        return None
    number = match["number"] or match["digit"]
    if number:
        return int(number) - 1
    if match["word"] in ("last", "latest", "later"):
        return -1
    return _ORDINALS.index(match["word"]) if match["word"] in _ORDINALS else 0


def _at(things: tuple[_T, ...], place: int) -> tuple[_T, ...]:
    return things[place:][:1]


def _latest(texts: Iterable[str], names: list[str]) -> str | None:
    return next((found for text in reversed(tuple(texts)) if (found := named(text, names))), None)


def _fits(clock: Clock, visit: Visit) -> bool:
    start = visit.local.time()
    if clock.at is not None:
        return start == clock.at
    return (clock.after is None or clock.after <= start) and (clock.before is None or start < clock.before)
