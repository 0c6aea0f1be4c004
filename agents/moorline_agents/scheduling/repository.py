"""Catalogue and appointments in PostgreSQL. The statements are in appointments.sql; times are instants."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from moorline_agents.errors import AgentError
from moorline_agents.scheduling.calendar import (
    Opening,
    ProviderCalendar,
    Span,
    Visit,
    iso,
    spoken,
    without_overlaps,
)
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from moorline_agents.tools import Connection, Row

MOST_LISTED = 20
"""How many of a device's appointments are listed at most."""

STATEMENTS = "moorline_agents.scheduling"
"""The package that holds the statements, in .sql files."""


@dataclass(frozen=True, kw_only=True)
class Provider:
    provider_id: int
    name: str
    zone: ZoneInfo
    capacity: int = field(default=1, compare=False)
    """How many visits they can have at the same time, if the catalogue was asked."""
    version: str = field(default="", compare=False)
    """Another one after each import of a catalogue, if the catalogue was asked."""


@dataclass(frozen=True, kw_only=True)
class Service:
    service_id: int
    name: str
    visit: Visit
    providers: tuple[Provider, ...]
    """The providers who offer it, by name; never empty."""

    @property
    def minutes(self) -> int:
        return self.visit.length // timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class About:
    """What the person said about an appointment."""

    name: str | None = None
    """Whom it is for."""
    note: str | None = None

    def shown(self) -> dict[str, object]:
        """What there is of it, as the model is shown it."""
        return {name: text for name, text in (("name", self.name), ("note", self.note)) if text}


@dataclass(frozen=True, kw_only=True)
class Appointment:
    appointment_id: UUID
    service_id: int
    service: str
    provider: Provider
    span: Span
    booked: bool
    """False once it is cancelled."""
    created_at: datetime
    about: About

    @property
    def reference(self) -> str:
        """The short name that people use for it; unique enough among the appointments of one device."""
        return str(self.appointment_id)[:8]

    @property
    def day(self) -> date:
        """The day on which it begins, in the provider's time zone."""
        return self.span.start.astimezone(self.provider.zone).date()

    def shown(self) -> dict[str, object]:
        """The appointment as the model is shown it."""
        zone = self.provider.zone
        return {
            "reference": self.reference,
            "service": self.service,
            "provider": self.provider.name,
            "start": iso(self.span.start, zone),
            "end": iso(self.span.end, zone),
            "when": spoken(self.span.start, zone),
            "time_zone": zone.key,
            **self.about.shown(),
        }

    def __str__(self) -> str:
        when = spoken(self.span.start, self.provider.zone)
        return f"{self.service} with {self.provider.name} on {when} (reference {self.reference})"


@dataclass(frozen=True, kw_only=True)
class StaffAppointment:
    """An appointment as the staff see it: whose it is, too."""

    device_id: str
    appointment: Appointment


@dataclass(frozen=True)
class AppointmentRepository:
    """Reads and writes one schema; the caller decides in which transaction."""

    schema: str

    def __post_init__(self) -> None:
        load(STATEMENTS, self.schema)

    async def services(self, connection: Connection) -> tuple[Service, ...]:
        """Every service that a provider offers, by name."""
        offers: dict[int, list[Row]] = {}
        for row in await connection.fetch(self._sql("offers")):
            offers.setdefault(row["service_id"], []).append(row)
        return tuple(
            Service(
                service_id=service_id,
                name=rows[0]["service"],
                visit=Visit(*(timedelta(minutes=rows[0][n]) for n in ("minutes", "buffer_before", "buffer_after"))),
                providers=tuple(replace(_provider(row), version=row["version"]) for row in rows),
            )
            for service_id, rows in offers.items()
        )

    async def calendars(
        self, connection: Connection, providers: Iterable[Provider], *, since: datetime, until: datetime
    ) -> dict[int, ProviderCalendar]:
        """The calendars by provider ID, complete for every local day between the two instants."""
        wanted = {provider.provider_id: provider for provider in providers}
        ids = list(wanted)
        day = timedelta(days=1)  # wider than any UTC offset
        hours = await connection.fetch(self._sql("hours"), ids)
        closures = await connection.fetch(self._sql("closures"), ids, (since - day).date(), (until + day).date())
        busy = await connection.fetch(self._sql("busy"), ids, since - day, until + day)
        return {
            provider_id: ProviderCalendar(
                provider=provider.name,
                zone=provider.zone,
                openings=tuple(opening(row) for row in _of(provider_id, hours)),
                closures=frozenset(row["day"] for row in _of(provider_id, closures)),
                seats=_seats(_of(provider_id, busy), provider.capacity),
            )
            for provider_id, provider in wanted.items()
        }

    async def upcoming(self, connection: Connection, device_id: str, now: datetime) -> list[Appointment]:
        """This device's next booked appointments, by time, `MOST_LISTED` at most."""
        rows = await connection.fetch(self._sql("upcoming"), device_id, now, MOST_LISTED)
        return list(map(_appointment, rows))

    async def same(
        self, connection: Connection, device_id: str, service: Service, starts: Mapping[int, datetime]
    ) -> Appointment | None:
        """The appointment that this device already has for this service at one of these starts, by provider ID."""
        row = await connection.fetchrow(
            self._sql("same"), device_id, service.service_id, list(starts), list(starts.values())
        )
        return None if row is None else _appointment(row)

    async def referred(self, connection: Connection, device_id: str, reference: str) -> list[Appointment]:
        """This device's appointments with this reference, booked or cancelled; almost never more than one."""
        return list(map(_appointment, await connection.fetch(self._sql("referred"), device_id, reference)))

    async def held(
        self, connection: Connection, device_id: str, *, since: datetime, until: datetime
    ) -> list[Appointment]:
        """What this device has booked, with whomever, that overlaps the time between the two instants."""
        return list(map(_appointment, await connection.fetch(self._sql("held"), device_id, since, until)))

    async def booked_lately(self, connection: Connection, device_id: str) -> int:
        """How many appointments this device has made in the last 24 hours, whatever became of them."""
        booked: int = await connection.fetchval(self._sql("booked_lately"), device_id)
        return booked

    async def book(
        self,
        connection: Connection,
        device_id: str,
        *,
        service: Service,
        provider: Provider,
        start: datetime,
        seat: int,
        about: About,
        moved: Appointment | None,
    ) -> Appointment | None:
        """Books a seat of the provider, and returns the appointment; None if the seat or the device is busy then.

        The appointment takes the place of `moved`, which was taken out before.
        """
        span = Span(start=start, end=start + service.visit.length)
        occupied = service.visit.occupied(start)
        row = await connection.fetchrow(
            self._sql("book"),
            device_id,
            moved.appointment_id if moved else None,
            moved.created_at if moved else None,
            provider.provider_id,
            service.service_id,
            span.start,
            span.end,
            occupied.start,
            occupied.end,
            seat,
            about.name,
            about.note,
        )
        if row is None:
            return None
        return Appointment(
            appointment_id=row["appointment_id"],
            service_id=service.service_id,
            service=service.name,
            provider=provider,
            span=span,
            booked=True,
            created_at=row["created_at"],
            about=about,
        )

    async def upcoming_number(self, connection: Connection, device_id: str, now: datetime) -> int:
        """How many booked appointments of this device are to come."""
        number: int = await connection.fetchval(self._sql("upcoming_number"), device_id, now)
        return number

    async def on(self, connection: Connection, since: datetime, until: datetime) -> list[StaffAppointment]:
        """What everybody has booked that begins between the two instants, by time and provider."""
        rows = await connection.fetch(self._sql("on"), since, until)
        return [StaffAppointment(device_id=row["device_id"], appointment=_appointment(row)) for row in rows]

    async def is_as_it_was(self, connection: Connection, provider: Provider) -> bool:
        """Whether no catalogue has been imported since the provider was read from it. Asked after a booking, it also
        holds until that is committed: an import waits for it."""
        version: str | None = await connection.fetchval(self._sql("version"), provider.provider_id)
        return version == provider.version

    async def cancel(self, connection: Connection, device_id: str, appointment_id: UUID) -> bool:
        """Cancels the appointment, and returns whether it was booked until now."""
        return await connection.fetchval(self._sql("cancel"), device_id, appointment_id) is not None

    async def take_out(self, connection: Connection, device_id: str, appointment_id: UUID) -> bool:
        """Removes a booked appointment, which is then booked at another time in the same transaction."""
        return await connection.fetchval(self._sql("take_out"), device_id, appointment_id) is not None

    def _sql(self, name: str) -> str:
        return load(STATEMENTS, self.schema)[name].sql


def _of(provider_id: int, rows: Sequence[Row]) -> Iterable[Row]:
    return (row for row in rows if row["provider_id"] == provider_id)


def _provider(row: Row) -> Provider:
    name, time_zone = row["provider"], row["time_zone"]
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise AgentError(
            f"The time zone {time_zone!r} of provider {name!r} is not known here: correct "
            "appointment_providers.time_zone, or install the tzdata package if this system has no time zones."
        ) from error
    return Provider(provider_id=row["provider_id"], name=name, zone=zone, capacity=row["capacity"])


def opening(row: Row) -> Opening:
    return Opening(weekday=row["weekday"], opens=row["opens"], closes=row["closes"])


def _span(row: Row) -> Span:
    return Span(start=row["starts"], end=row["ends"])


def _seats(busy: Iterable[Row], capacity: int) -> tuple[tuple[Span, ...], ...]:
    """When each seat is taken. A visit on a seat that there is no longer could be on any, so it takes them all."""
    taken: list[list[Span]] = [[] for _ in range(capacity)]
    for row in busy:
        for seat in [taken[row["seat"] - 1]] if row["seat"] <= capacity else taken:
            seat.append(_span(row))
    return tuple(tuple(without_overlaps(seat)) for seat in taken)


def _appointment(row: Row) -> Appointment:
    return Appointment(
        appointment_id=row["appointment_id"],
        service_id=row["service_id"],
        service=row["service"],
        provider=_provider(row),
        span=_span(row),
        booked=row["status"] == "booked",
        created_at=row["created_at"],
        about=About(name=row["name"], note=row["note"]),
    )
