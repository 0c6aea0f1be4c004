"""The catalogue in PostgreSQL: read as a whole, and replaced as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from moorline_agents.scheduling.calendar import Bookable, ProviderCalendar, Unbookable, Visit
from moorline_agents.scheduling.catalogue_file import Catalogue, Minutes, ServiceEntry
from moorline_agents.scheduling.repository import STATEMENTS, AppointmentRepository, StaffAppointment, opening
from moorline_migrations.statements import load

if TYPE_CHECKING:
    from moorline_agents.tools import Connection

_FAR = timedelta(days=36_500)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """What came of replacing a catalogue."""

    misfits: tuple[StaffAppointment, ...]
    """Booked appointments to come that could not be booked any more, by time: their hours, provider or service have
    changed. They stay booked; somebody has to talk to these people."""


class CatalogueStore:
    """The catalogue of one schema. Replacing it needs the rights of whoever migrates. Raises `ConfigurationError` for a
    schema name that is not valid."""

    def __init__(self, connection: Connection, *, schema: str = "public") -> None:
        self._connection = connection
        self._repository = AppointmentRepository(schema)
        self._schema = schema

    async def read(self) -> Catalogue:
        """What is offered now; breaks are the gaps between hours. Raises `ConfigurationError` if the tables contradict
        themselves."""
        services = await self._connection.fetch(self._sql("services"))
        providers = await self._connection.fetch(self._sql("providers"))
        rows = await self._connection.fetch(self._sql("hours"), [row["provider_id"] for row in providers])
        zones = {row["time_zone"] for row in providers}
        common = zones.pop() if len(zones) == 1 else None
        hours: dict[int, dict[int, tuple[Minutes, ...]]] = {}
        for row in rows:
            of_provider, each = hours.setdefault(row["provider_id"], {}), opening(row)
            span = Minutes(opens=each.opens, closes=each.closes)
            of_provider[each.weekday] = (*of_provider.get(each.weekday, ()), span)
        return Catalogue.of(
            {
                "time_zone": common,
                "services": {row["name"]: {name: row[name] for name in ServiceEntry.model_fields} for row in services},
                "providers": {
                    row["name"]: {
                        "offers": row["offers"],
                        "hours": hours.get(row["provider_id"], {}),
                        "time_zone": None if common else row["time_zone"],
                        "capacity": row["capacity"],
                        "closures": row["closures"] or (),
                    }
                    for row in providers
                },
            }
        )

    async def replace(self, catalogue: Catalogue, *, now: datetime) -> Replaced:
        """Makes it what is offered, whatever was before; the caller decides in which transaction. What has appointments
        and is not in it any more stays for them, but nobody can book it. Appointments stay as they are."""
        providers = catalogue.providers
        services = catalogue.services
        await self._run("one_at_a_time")
        await self._run("after_bookings")
        await self._run(
            "put_services",
            list(services),
            [each.minutes for each in services.values()],
            [each.buffer_before for each in services.values()],
            [each.buffer_after for each in services.values()],
        )
        await self._run(
            "put_providers",
            list(providers),
            [catalogue.zone_of(each) for each in providers.values()],
            [each.capacity for each in providers.values()],
        )
        await self._put("offers", [(name, service) for name, each in providers.items() for service in each.offers], 2)
        hours = [(name, each) for name, provider in providers.items() for each in provider.openings]
        written = [(name, each.weekday, *_clock(each.opens, each.closes)) for name, each in hours]
        await self._put("hours", written, 4)
        closures = [(name, day) for name, each in providers.items() for day in sorted(catalogue.closures_of(each))]
        await self._put("closures", closures, 2)
        await self._run("drop_services", list(services))
        await self._run("drop_providers", list(providers))
        to_come = await self._repository.on(self._connection, now, now.astimezone(UTC) + _FAR)
        booked = [each for each in to_come if each.appointment.booked]
        return Replaced(misfits=tuple(each for each in booked if not _fits(catalogue, each, now)))

    async def _put(self, what: str, rows: Sequence[tuple[object, ...]], columns: int) -> None:
        await self._run(f"clear_{what}")
        await self._run(f"put_{what}", *([row[column] for row in rows] for column in range(columns)))

    async def _run(self, name: str, *arguments: object) -> None:
        await self._connection.execute(self._sql(name), *arguments)

    def _sql(self, name: str) -> str:
        return load(STATEMENTS, self._schema)[name].sql


def _clock(opens: int, closes: int) -> tuple[str, str]:
    closes = closes if closes <= 1440 else closes - 1440  # noqa: PLR2004 - minutes of a day
    return f"{opens // 60:02}:{opens % 60:02}", f"{closes // 60:02}:{closes % 60:02}"


def _fits(catalogue: Catalogue, found: StaffAppointment, now: datetime) -> bool:
    """Whether the appointment could be booked by the catalogue's hours and offers, if nothing else were booked."""
    appointment = found.appointment
    provider = catalogue.providers.get(appointment.provider.name)
    if provider is None or appointment.service not in provider.offers:
        return False
    calendar = ProviderCalendar(
        provider=appointment.provider.name,
        zone=appointment.provider.zone,
        openings=provider.openings,
        closures=catalogue.closures_of(provider),
        seats=((),),
    )
    span = appointment.span
    visit, bookable = Visit(span.end - span.start), Bookable(now=now, horizon=_FAR)
    try:
        calendar.start_of(span.start.astimezone(calendar.zone), visit=visit, bookable=bookable)
    except Unbookable:
        return False
    return True
