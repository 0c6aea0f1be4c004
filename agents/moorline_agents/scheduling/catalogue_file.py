"""The catalogue of a business as a YAML file: what can be booked, with whom and when.

A file is checked as a whole before anything comes of it, and everything that is wrong with it is told at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from datetime import date, timedelta
from functools import cached_property
from itertools import chain, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from moorline_agents.scheduling.calendar import Opening
from moorline_agents.scheduling.catalogue import folded
from moorline_agents.scheduling.catalogue_yaml import loaded
from moorline_migrations.errors import ConfigurationError
from moorline_migrations.plain import one_line

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_DAY = 1440  # minutes
_MOST_DAYS = 3660  # of one list of closures
_MOST_SPANS = 24  # of a day's hours, and breaks
_MOST_NAMED = 1_000  # services, and providers
_MOST_TOLD = 20  # problems
_UNREADABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # of letters and emojis
_SPAN = re.compile(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)")


class Minutes(BaseModel):
    """A span of a day in minutes since its midnight; it may end on the next day."""

    model_config = ConfigDict(frozen=True)

    opens: int
    closes: int

    @classmethod
    def of(cls, text: str) -> Self:
        """The span that is written `09:00-17:00`, or `22:00-02:00` if it goes past midnight."""
        found = _SPAN.fullmatch(text.strip())
        hours = [int(each) for each in found.groups()] if found else []
        if not hours or hours[0] > 23 or max(hours[1], hours[3]) > 59 or hours[2] * 60 + hours[3] > _DAY:  # noqa: PLR2004
            raise ValueError(f"{text!r} is not a span of time: write it like 09:00-17:00")
        opens, closes = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
        if opens == closes:
            raise ValueError(f"{text!r} begins when it ends")
        return cls(opens=opens, closes=closes if closes > opens else closes + _DAY)

    def without(self, other: Minutes) -> Iterator[Minutes]:
        """What is left of the span before and after the other."""
        if other.closes <= self.opens or other.opens >= self.closes:
            yield self
            return
        if other.opens > self.opens:
            yield Minutes(opens=self.opens, closes=other.opens)
        if other.closes < self.closes:
            yield Minutes(opens=other.closes, closes=self.closes)

    def on_all_days(self) -> tuple[Minutes, ...]:
        """The span on its day, on the next one, where hours that go past midnight meet it, and on the one before, from
        which it may itself go past midnight."""
        return tuple(Minutes(opens=self.opens + days, closes=self.closes + days) for days in (-_DAY, 0, _DAY))

    def __str__(self) -> str:
        closes = self.closes if self.closes <= _DAY else self.closes - _DAY
        return "-".join(f"{each // 60:02}:{each % 60:02}" for each in (self.opens, closes))


def _offers(value: Any) -> Any:
    return _items(value, str, _MOST_NAMED)


def _spans(value: Any) -> Any:
    return [Minutes.of(each) if isinstance(each, str) else each for each in _items(value, Minutes, _MOST_SPANS)]


def _days(value: Any) -> Any:
    days: list[date] = []
    for each in _items(value, date, _MOST_DAYS):
        days += _days_of(each) if isinstance(each, str) else [each]
        if len(days) > _MOST_DAYS:
            raise ValueError(f"there are more than {_MOST_DAYS:,} days")
    return days


def _items(value: Any, kind: type, most: int) -> Sequence[Any]:
    """A list of texts, for which one text may stand, or of what is of that kind already. It is bounded before anything
    is made of it: in YAML, a few letters may stand for very many."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str | kind) for each in listed):
        raise ValueError("write one text, or a list of them")
    _few(listed, most)
    return listed


def _few(value: Any, most: int = _MOST_NAMED) -> Any:
    if isinstance(value, Sized) and len(value) > most:
        raise ValueError(f"there are {len(value):,}, and at most {most:,} are allowed")
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write one like Europe/Berlin") from None
    return name


def _name(name: str) -> str:
    """People and models read it, and name it again."""
    if any(unicodedata.category(each) in _UNREADABLE and each not in _JOINERS for each in name) or not folded(name):
        raise ValueError(f"{name!r} is no name: write words on one line")
    return name


def _days_of(text: str) -> list[date]:
    first, _, last = (part.strip() for part in text.partition("/"))
    try:
        begins = date.fromisoformat(first)
        ends = date.fromisoformat(last) if last else begins
    except ValueError:
        raise ValueError(f"{text!r} is no day: write 2026-12-24, or 2026-12-24/2027-01-02 for several") from None
    if not 0 <= (ends - begins).days <= _MOST_DAYS:
        raise ValueError(f"{text!r} ends before it begins, or after more than ten years")
    return [begins + timedelta(days=number) for number in range((ends - begins).days + 1)]


def _by_weekday(value: Any) -> Any:
    """Hours by ISO weekday, which files name in English: `monday`, or `monday-friday`."""
    if not isinstance(value, Mapping):
        return value
    hours: dict[int, Any] = {}
    for name, spans in value.items():
        if isinstance(name, int):
            hours[name] = spans
            continue
        first, _, last = (part.strip().lower() for part in str(name).partition("-"))
        if first not in DAYS or (last or first) not in DAYS or DAYS.index(last or first) < DAYS.index(first):
            raise ValueError(f"{name!r} names no days: write monday, or monday-friday")
        for weekday in range(DAYS.index(first) + 1, DAYS.index(last or first) + 2):
            if weekday in hours:
                raise ValueError(f"{DAYS[weekday - 1]} is there twice")
            hours[weekday] = spans
    return hours


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)]
TimeZone = Annotated[str, AfterValidator(_zone)]
Spans = Annotated[tuple[Minutes, ...], BeforeValidator(_spans)]
Days = Annotated[tuple[date, ...], BeforeValidator(_days)]
Hours = Annotated[dict[int, Spans], BeforeValidator(_by_weekday)]
Buffer = Annotated[int, Field(ge=0, le=_DAY)]
Few = BeforeValidator(_few)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


EntryT = TypeVar("EntryT", bound=_Entry)


class ServiceEntry(_Entry):
    """What can be booked, in minutes: how long a visit takes, and what its provider needs before and after it."""

    minutes: Annotated[int, Field(gt=0, le=_DAY)]
    buffer_before: Buffer = 0
    buffer_after: Buffer = 0


_ANY_SERVICE = ServiceEntry(minutes=1)  # for one that cannot be read
_PARTS = ("services", "providers")


class ProviderEntry(_Entry):
    """Who provides services, for how many people at the same time, and when."""

    offers: Annotated[tuple[Name, ...], BeforeValidator(_offers)]
    hours: Hours
    time_zone: TimeZone | None = None
    capacity: Annotated[int, Field(gt=0, le=1_000)] = 1
    breaks: Spans = ()
    closures: Days = ()

    @cached_property
    def openings(self) -> tuple[Opening, ...]:
        """The hours without the breaks, by weekday and time."""
        worked = [(day, part) for day, spans in self.hours.items() for span in spans for part in self._worked(span)]
        return tuple(sorted((_opening(*each) for each in worked), key=attrgetter("weekday", "opens")))

    def _worked(self, span: Minutes) -> list[Minutes]:
        left = [span]
        for pause in chain.from_iterable(each.on_all_days() for each in self.breaks):
            left = [rest for part in left for rest in part.without(pause)]
        return left


class Catalogue(_Entry):
    """Everything that a business offers. `time_zone` is that of the providers who name none, `closures` are the days on
    which all of them are closed."""

    services: Annotated[dict[Name, ServiceEntry], Few]
    providers: Annotated[dict[Name, ProviderEntry], Few]
    time_zone: TimeZone | None = None
    closures: Days = ()

    @classmethod
    def of_yaml(cls, text: str) -> Self:
        """The catalogue in a file. Raises `ConfigurationError`, which names everything that is wrong with it."""
        return cls.of(loaded(text))

    @classmethod
    def of(cls, value: object) -> Self:
        """The catalogue that a mapping describes as a file would. Raises `ConfigurationError`."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            problems = [line for each in errors for line in _told(each)]
            if any(each["loc"] for each in errors):
                problems += map(one_line, cls._also_wrong(value))
        more = [f"and {len(problems) - _MOST_TOLD} more"] if len(problems) > _MOST_TOLD else []
        told = "; ".join([*problems[:_MOST_TOLD], *more])
        raise ConfigurationError(f"The catalogue cannot be used, and nothing was changed. {told}.")

    def to_yaml(self) -> str:
        """The catalogue as a file, from which `of_yaml` makes an equal one."""
        import yaml  # noqa: PLC0415 - only files need it

        return str(yaml.safe_dump(self._shown(), sort_keys=False, allow_unicode=True, width=120))

    def zone_of(self, provider: ProviderEntry) -> str:
        """The IANA name of the provider's time zone."""
        return provider.time_zone or self.time_zone or ""

    def closures_of(self, provider: ProviderEntry) -> frozenset[date]:
        """The days on which the provider is closed."""
        return frozenset((*self.closures, *provider.closures))

    @classmethod
    def _also_wrong(cls, value: Any) -> Iterator[str]:
        """What else is wrong with a catalogue some of whose parts cannot be read: how the others agree."""
        services, providers = (value.get(part) if isinstance(value, Mapping) else None for part in _PARTS)
        if not isinstance(services, Mapping) or not isinstance(providers, Mapping):
            return
        if max(len(services), len(providers)) > _MOST_NAMED:
            return
        known = {name: _readable(ServiceEntry, entry) or _ANY_SERVICE for name, entry in services.items()}
        read = {name: _readable(ProviderEntry, entry) for name, entry in providers.items()}
        working = {name: entry for name, entry in read.items() if entry is not None}
        others = cls.model_construct(services=known, providers=working, time_zone=value.get("time_zone"))
        yield from others._names()
        if len(working) == len(read):
            yield from others._offers()
        yield from chain.from_iterable(map(others._work, working))

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        problems = [*self._names(), *self._offers(), *chain.from_iterable(map(self._work, self.providers))]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _names(self) -> Iterator[str]:
        for kind, named in (("services", self.services), ("providers", self.providers)):
            for one, other in pairwise(sorted(named, key=folded)):
                if folded(one) == folded(other):
                    yield f"{kind}: {one!r} and {other!r} are the same name to people"

    def _offers(self) -> Iterator[str]:
        offered = set(chain.from_iterable(provider.offers for provider in self.providers.values()))
        for service in self.services:
            if service not in offered:
                yield f"services.{service}: nobody offers it"

    def _work(self, name: str) -> Iterator[str]:
        provider, where = self.providers[name], f"providers.{name}"
        if not provider.offers:
            yield f"{where}.offers: nothing is offered"
        for service, number in Counter(provider.offers).items():
            if number > 1:
                yield f"{where}.offers: {service!r} is there twice"
            if service not in self.services:
                yield f"{where}.offers: there is no service {service!r}"
            elif not any(each.closes - each.opens >= self.services[service].minutes for each in provider.openings):
                yield f"{where}.hours: none of them is long enough for {service!r}"
        if not self.zone_of(provider):
            yield f"{where}.time_zone: there is none; write one like Europe/Berlin"
        for day, parts in Counter(each.weekday for each in provider.openings).items():
            if parts > _MOST_SPANS:
                yield f"{where}.breaks: they leave {parts} parts of {DAYS[day - 1]}, at most {_MOST_SPANS} are allowed"
        spans = list(chain.from_iterable(provider.hours.values()))
        for pause in provider.breaks:
            if all([*span.without(part)] == [span] for span in spans for part in pause.on_all_days()):
                yield f"{where}.breaks: {pause} is in none of the hours"
        week = sorted(
            (day * _DAY + span.opens, day * _DAY + span.closes, day)
            for day, of_day in provider.hours.items()
            for span in of_day
        )
        for (_, closes, one), (opens, _, other) in pairwise([*week, *((o + 7 * _DAY, c, d) for o, c, d in week[:1])]):
            if opens < closes:
                days = " and ".join(dict.fromkeys((DAYS[one - 1], DAYS[other - 1])))
                yield f"{where}.hours: those of {days} overlap"

    def _shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "services": {name: service.model_dump(exclude_defaults=True) for name, service in self.services.items()},
            "providers": {name: _provider_shown(provider) for name, provider in self.providers.items()},
        }
        if self.closures:
            shown["closures"] = _written(self.closures)
        return {"time_zone": self.time_zone, **shown} if self.time_zone else shown


def _readable(kind: type[EntryT], entry: object) -> EntryT | None:
    try:
        return kind.model_validate(entry)
    except ValidationError:
        return None


def _opening(weekday: int, part: Minutes) -> Opening:
    """Hours on the day on which they begin: after a break past midnight that is the next one."""
    days, opens = divmod(part.opens, _DAY)
    return Opening(weekday=(weekday - 1 + days) % 7 + 1, opens=opens, closes=part.closes - days * _DAY)


def _provider_shown(provider: ProviderEntry) -> dict[str, Any]:
    shown: dict[str, Any] = {"offers": [*provider.offers]}
    if provider.time_zone:
        shown["time_zone"] = provider.time_zone
    if provider.capacity > 1:
        shown["capacity"] = provider.capacity
    shown["hours"] = {DAYS[day - 1]: [str(span) for span in spans] for day, spans in sorted(provider.hours.items())}
    if provider.breaks:
        shown["breaks"] = [str(span) for span in provider.breaks]
    if provider.closures:
        shown["closures"] = _written(provider.closures)
    return shown


def _written(days: Sequence[date]) -> list[str]:
    """Days in a row as one text."""
    written: list[list[date]] = []
    for day in sorted(set(days)):
        if written and (day - written[-1][-1]).days == 1:
            written[-1].append(day)
        else:
            written.append([day])
    return ["/".join(dict.fromkeys((row[0].isoformat(), row[-1].isoformat()))) for row in written]


_WRITTEN = {
    0: "the file has to name `services` and `providers`",
    2: "write it like {minutes: 30}, or {offers: Cut, hours: {monday: 09:00-17:00}}",
}
"""What is to be written where there is no mapping, by how deep that is."""


def _told(error: ErrorDetails) -> Iterator[str]:
    where = ".".join(str(part) for part in error["loc"])
    told = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("model_type", "dict_type"):
        told = _WRITTEN.get(len(error["loc"]), "write names, and for each what is to be said of it")
    for line in told.splitlines():
        yield one_line(f"{where}: {line}" if where else line)
