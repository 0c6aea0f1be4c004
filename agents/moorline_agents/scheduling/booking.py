"""Books, moves and finds a device's appointments; a refusal says which times are free instead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from moorline_agents.scheduling.calendar import HORIZON, Bookable, ProviderCalendar, Span, Unbookable, meant
from moorline_agents.scheduling.repository import About, Appointment
from moorline_agents.scheduling.slots import SEARCH, Slot, next_slots
from moorline_agents.tools import ToolRefused
from moorline_migrations.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moorline_agents.scheduling.repository import AppointmentRepository, Provider, Service
    from moorline_agents.tools import Connection

_DAY = timedelta(days=1)
_GONE = "23503"
"""PostgreSQL's code for a row that refers to one that is not there any more."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a device may book, whatever a model asks for. Raises `ConfigurationError` if that is nothing."""

    per_day: int = 10
    """Appointments made in 24 hours; cancelled ones count, moves do not."""
    upcoming: int | None = None
    """Appointments to come at the same time; None: any number."""

    def __post_init__(self) -> None:
        for name, most in (("per_day", self.per_day), ("upcoming", self.upcoming)):
            if most is not None and most < 1:
                raise ConfigurationError(f"Limits: {name} is {most}, and nothing could be booked; allow at least 1.")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of a business. Raises `ConfigurationError` if nothing could ever be booked."""

    limits: Limits = Limits()
    lead_time: timedelta = timedelta()
    horizon: timedelta = HORIZON

    def __post_init__(self) -> None:
        if not timedelta() <= self.lead_time < self.horizon:
            raise ConfigurationError(
                f"lead_time is {self.lead_time} and horizon {self.horizon}: appointments begin between the two, so let "
                "lead_time be the smaller one, and not negative."
            )

    def bookable(self, now: datetime) -> Bookable:
        return Bookable(now=now, lead_time=self.lead_time, horizon=self.horizon)


@dataclass(frozen=True, kw_only=True)
class BookingRequest:
    """What a device wants: a service at a local time, with the first of `providers` who is free."""

    service: Service
    providers: tuple[Provider, ...]
    wanted: datetime
    about: About
    moved: Appointment | None = None
    """The appointment that is moved. It is taken out before the request is placed, and keeps its ID."""

    @property
    def changes_nothing(self) -> bool:
        """Whether it would move an appointment to where it is already."""
        if self.moved is None:
            return False
        provider = self.moved.provider
        return provider in self.providers and meant(self.wanted, provider.zone) == self.moved.span.start


@dataclass(frozen=True, kw_only=True)
class BookingService:
    """Works for one device in one transaction, at the time of its turn."""

    repository: AppointmentRepository
    connection: Connection
    device_id: str
    bookable: Bookable
    limits: Limits

    async def open_to_device(
        self, providers: Sequence[Provider], wanted: datetime | None
    ) -> dict[int, ProviderCalendar]:
        """The calendars by provider ID, busy also where the device is; they reach as far as a search from the local
        time `wanted` can look."""
        since, until = self._reach(wanted)
        calendars = await self._calendars(providers, wanted)
        held = await self.repository.held(self.connection, self.device_id, since=since, until=until)
        spans = [appointment.span for appointment in held]
        return {provider_id: calendar.with_busy(*spans) for provider_id, calendar in calendars.items()}

    async def _calendars(self, providers: Sequence[Provider], wanted: datetime | None) -> dict[int, ProviderCalendar]:
        since, until = self._reach(wanted)
        return await self.repository.calendars(self.connection, providers, since=since, until=until)

    def _reach(self, wanted: datetime | None) -> tuple[datetime, datetime]:
        anchor = self.bookable.since
        if wanted is not None:
            anchor = min(max(anchor, wanted.replace(tzinfo=UTC)), self.bookable.until)
        return anchor - _DAY, anchor + SEARCH + 2 * _DAY

    async def changeable(self, reference: str | None) -> Appointment:
        """This device's appointment with that reference, or its only upcoming one.

        It has not begun, but may have been cancelled. Raises `ToolRefused` with the upcoming appointments if none
        matches, or more than one.
        """
        if reference is not None:
            found = await self.repository.referred(self.connection, self.device_id, reference)
        else:
            found = await self.repository.upcoming(self.connection, self.device_id, self.bookable.now)
        if len(found) == 1 and found[0].span.start > self.bookable.now:
            return found[0]
        if len(found) == 1:
            raise ToolRefused(
                f"{found[0]} has begun or is over; it cannot be changed any more.",
                code="begun",
                appointment=found[0].shown(),
            )
        upcoming = await self.repository.upcoming(self.connection, self.device_id, self.bookable.now)
        if not upcoming:
            raise ToolRefused("This person has no upcoming appointment.", code="no_appointment")
        raise ToolRefused(
            "It is not clear which appointment is meant. Ask the person, then pass its reference.",
            code="which_appointment",
            appointments=[appointment.shown() for appointment in upcoming],
        )

    async def same(self, request: BookingRequest) -> Appointment | None:
        """The appointment that this device already has where the request would put one."""
        starts = {p.provider_id: meant(request.wanted, p.zone) for p in request.providers}
        exact = {provider_id: start for provider_id, start in starts.items() if start is not None}
        return await self.repository.same(self.connection, self.device_id, request.service, exact)

    async def place(self, request: BookingRequest) -> Appointment:
        """Books with the first provider who is free.

        If nobody is, or the device has another appointment then, raises `ToolRefused` with the first provider's reason
        as its code and the next free slots; also if the device has made too many appointments. Let it leave the
        transaction, so that a moved appointment is back where it was.
        """
        if request.moved is None:
            await self._check_number()
        calendars = await self._calendars(request.providers, request.wanted)
        objections: list[Unbookable] = []
        for provider in request.providers:
            calendar = calendars[provider.provider_id]
            try:
                start = calendar.start_of(request.wanted, visit=request.service.visit, bookable=self.bookable)
            except Unbookable as objection:
                objections.append(objection)
                continue
            for seat in calendar.free_seats(request.service.visit.occupied(start)):
                appointment = await self._book(request, provider, start, seat)
                if appointment is not None:
                    return appointment
            span = Span(start=start, end=start + request.service.visit.length)
            objections.append(await self._elsewhere(span) or calendar.taken(start))
        # Read anew: others may have booked since.
        calendars = await self.open_to_device(request.providers, request.wanted)
        raise self._refusal(request, objections, calendars)

    async def _book(
        self, request: BookingRequest, provider: Provider, start: datetime, seat: int
    ) -> Appointment | None:
        """The appointment; None if the seat or the device is busy then. Raises `ToolRefused` if a catalogue has been
        imported since this one was read."""
        try:
            appointment = await self.repository.book(
                self.connection,
                self.device_id,
                service=request.service,
                provider=provider,
                start=start,
                seat=seat,
                about=request.about,
                moved=request.moved,
            )
            as_it_was = appointment is None or await self.repository.is_as_it_was(self.connection, provider)
        except Exception as error:
            if getattr(error, "sqlstate", None) != _GONE:
                raise
            as_it_was = False
        if not as_it_was:
            raise ToolRefused(
                "What is offered, and when, has changed just now, so nothing was changed. Look for free times again.",
                code="catalogue_changed",
            )
        return appointment

    async def _check_number(self) -> None:
        # The transaction holds the device's row, so no other booking of the device is on its way.
        most, lately = self.limits.upcoming, self.limits.per_day
        if most is not None and await self._upcoming_number() >= most:
            raise ToolRefused(
                f"This person has {most} appointments to come, as many as can be had here. Nothing was booked. They "
                "can move or cancel one, or ask the staff.",
                code="too_many",
            )
        if await self.repository.booked_lately(self.connection, self.device_id) >= lately:
            raise ToolRefused(
                f"This person has made {lately} appointments in the last 24 hours, as many as can be made here. "
                "Nothing was booked. They can try again later, or ask the staff.",
                code="too_many",
            )

    async def _upcoming_number(self) -> int:
        return await self.repository.upcoming_number(self.connection, self.device_id, self.bookable.now)

    async def _elsewhere(self, span: Span) -> Unbookable | None:
        """The objection that the person has another appointment in `span`; None if there is none."""
        held = await self.repository.held(self.connection, self.device_id, since=span.start, until=span.end)
        if not held:
            return None
        return Unbookable(
            f"This person has another appointment then: {held[0]}. It has to be moved or cancelled first.",
            reason="elsewhere",
            look_from=span.start,
        )

    def _refusal(
        self, request: BookingRequest, objections: Sequence[Unbookable], calendars: Mapping[int, ProviderCalendar]
    ) -> ToolRefused:
        outcome = "Nothing was booked." if request.moved is None else "The appointment stays where it was."
        reasons = " ".join(dict.fromkeys(str(objection) for objection in objections))
        looks = [objection.look_from for objection in objections if objection.look_from is not None]
        if looks:
            kept = _kept(calendars, request.moved)
            slots = next_slots(kept, visit=request.service.visit, since=min(looks), bookable=self.bookable)
        else:
            slots = _meant(request, objections)
        if looks and not slots:
            outcome += f" Nothing else is free in the {SEARCH.days} days from then."
        return ToolRefused(
            f"{reasons} {outcome}",
            code=objections[0].reason,
            service=request.service.name,
            slots=[slot.shown() for slot in slots],
        )


def _meant(request: BookingRequest, objections: Sequence[Unbookable]) -> list[Slot]:
    """The times that the request may mean, if that is unclear."""
    return [
        Slot(start=instant, zone=provider.zone, providers=(provider.name,))
        for provider, objection in zip(request.providers, objections, strict=True)
        for instant in objection.instants
    ]


def _kept(calendars: Mapping[int, ProviderCalendar], moved: Appointment | None) -> list[ProviderCalendar]:
    """The calendars as they are once a moved appointment is back where it was."""
    return [
        calendar.with_busy(moved.span) if moved and moved.provider.provider_id == provider_id else calendar
        for provider_id, calendar in calendars.items()
    ]
