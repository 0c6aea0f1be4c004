"""Books, moves and finds a device's appointments; a refusal says which times are free instead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from moorline_agents.scheduling.calendar import HORIZON, Calendar, Span, Unbookable, meant
from moorline_agents.scheduling.repository import Appointment
from moorline_agents.scheduling.slots import SEARCH, Slot, next_slots
from moorline_agents.tools import ToolRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from moorline_agents.scheduling.repository import AppointmentRepository, Provider, Service
    from moorline_agents.tools import Connection

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class BookingRequest:
    """What a device wants: a service at a local time, with the first of `providers` who is free."""

    service: Service
    providers: tuple[Provider, ...]
    wanted: datetime
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
    now: datetime

    async def calendars(self, providers: Sequence[Provider], wanted: datetime | None) -> dict[int, Calendar]:
        """The calendars by provider ID; they reach as far as a search from the local time `wanted` can look."""
        anchor = self.now
        if wanted is not None:
            anchor = min(max(self.now, wanted.replace(tzinfo=UTC)), self.now + HORIZON)
        return await self.repository.calendars(
            self.connection, providers, since=anchor - _DAY, until=anchor + SEARCH + 2 * _DAY
        )

    async def changeable(self, reference: str | None) -> Appointment:
        """This device's appointment with that reference, or its only upcoming one.

        It has not begun, but may have been cancelled. Raises `ToolRefused` with the upcoming appointments if none
        matches, or more than one.
        """
        if reference is not None:
            found = await self.repository.referred(self.connection, self.device_id, reference)
        else:
            found = await self.repository.upcoming(self.connection, self.device_id, self.now)
        if len(found) == 1 and found[0].span.start > self.now:
            return found[0]
        if len(found) == 1:
            raise ToolRefused(
                f"{found[0]} has begun or is over; it cannot be changed any more.",
                code="begun",
                appointment=found[0].shown(),
            )
        upcoming = await self.repository.upcoming(self.connection, self.device_id, self.now)
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

        If nobody is, raises `ToolRefused` with the first provider's reason as its code and the next free slots. Let it
        leave the transaction, so that a moved appointment is back where it was.
        """
        calendars = await self.calendars(request.providers, request.wanted)
        objections: list[Unbookable] = []
        outrun = False
        for provider in request.providers:
            calendar = calendars[provider.provider_id]
            try:
                start = calendar.start_of(request.wanted, length=request.service.length, now=self.now)
            except Unbookable as objection:
                objections.append(objection)
                continue
            span = Span(start=start, end=start + request.service.length)
            if appointment := await self._booked(request, provider, span):
                return appointment
            objections.append(calendar.taken(start))
            outrun = True
        if outrun:  # others have booked since the calendars were read
            calendars = await self.calendars(request.providers, request.wanted)
        raise self._refusal(request, objections, calendars)

    async def _booked(self, request: BookingRequest, provider: Provider, span: Span) -> Appointment | None:
        service = request.service
        appointment_id = await self.repository.book(
            self.connection,
            self.device_id,
            provider_id=provider.provider_id,
            service_id=service.service_id,
            span=span,
            appointment_id=request.moved.appointment_id if request.moved else None,
        )
        if appointment_id is None:
            return None
        return Appointment(
            appointment_id=appointment_id,
            service_id=service.service_id,
            service=service.name,
            provider=provider,
            span=span,
            booked=True,
        )

    def _refusal(
        self, request: BookingRequest, objections: Sequence[Unbookable], calendars: Mapping[int, Calendar]
    ) -> ToolRefused:
        outcome = "Nothing was booked." if request.moved is None else "The appointment stays where it was."
        reasons = " ".join(dict.fromkeys(str(objection) for objection in objections))
        looks = [objection.look_from for objection in objections if objection.look_from is not None]
        if looks:
            kept = _kept(calendars, request.moved)
            slots = next_slots(kept, length=request.service.length, since=max(self.now, min(looks)), now=self.now)
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


def _kept(calendars: Mapping[int, Calendar], moved: Appointment | None) -> list[Calendar]:
    """The calendars as they are once a moved appointment is back where it was."""
    return [
        calendar.with_busy(moved.span) if moved and moved.provider.provider_id == provider_id else calendar
        for provider_id, calendar in calendars.items()
    ]
