"""The five tools of the scheduling agent. Each sees only the appointments of the device that asks."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from moorline_agents.scheduling.arguments import Book, Cancel, FindSlots, ListAppointments, Move
from moorline_agents.scheduling.booking import BookingRequest, BookingService, Rules
from moorline_agents.scheduling.calendar import Bookable, ProviderCalendar, Unbookable, day_name, first_instant, spoken
from moorline_agents.scheduling.catalogue import named_service, offering
from moorline_agents.scheduling.confirming import Change, asking
from moorline_agents.scheduling.repository import About, Appointment, AppointmentRepository, Service
from moorline_agents.scheduling.slots import SEARCH, PartOfDay, Slot, next_slots, slots_on
from moorline_agents.scheduling.wording import ENGLISH, Wording
from moorline_agents.tools import Connection, Tool, ToolContext, ToolRefused, tool


def scheduling_tools(
    *,
    schema: str = "public",
    rules: Rules = Rules(),  # noqa: B008 - frozen
    wording: Wording | None = ENGLISH,
) -> tuple[Tool, ...]:
    """find_slots, book, list_appointments, move and cancel, on the tables of `schema`. `book`, `move` and `cancel` ask
    the person first, as `wording` says; None: they do not.

    Raises `ConfigurationError` if `schema` is not a valid name.
    """
    tools = _Tools(AppointmentRepository(schema), rules)

    def changes(change: Change[Any], question: str) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], Tool]:
        asks = None if wording is None else asking(change, question, wording)
        return tool(effect="database", idempotent=True, confirm=asks)

    reads, words = tool(idempotent=True), wording or ENGLISH
    return (
        reads(tools.find_slots),
        changes(tools.to_book, words.book)(tools.book),
        reads(tools.list_appointments),
        changes(tools.to_move, words.move)(tools.move),
        changes(tools.to_cancel, words.cancel)(tools.cancel),
    )


class _Tools:
    """Their docstrings are what a model is told about them. The changes that `book`, `move` and `cancel` make are
    methods of their own, which the question before them uses, too."""

    def __init__(self, repository: AppointmentRepository, rules: Rules) -> None:
        self._repository = repository
        self._rules = rules

    async def find_slots(self, arguments: FindSlots, context: ToolContext) -> dict[str, Any]:
        """Find free times for a service; offer only times that this returned. Without a service it lists what is
        offered, how long it takes, and by whom."""
        async with context.transaction() as connection:
            services = await self._repository.services(connection)
            if arguments.service is None:
                return {"services": [_offer(service) for service in services]}
            service = named_service(services, arguments.service)
            providers = offering(service, arguments.provider)
            wanted = None if arguments.day is None else datetime.combine(arguments.day, time.min)
            calendars = await self._service(connection, context).open_to_device(providers, wanted)
        search = _Search(
            calendars=tuple(calendars.values()),
            service=service,
            bookable=self._rules.bookable(context.now),
            part=PartOfDay(after=arguments.after or time.min, before=arguments.before),
        )
        slots, note = search.anywhere() if arguments.day is None else search.around(arguments.day)
        return {
            "service": service.name,
            "minutes": service.minutes,
            "now": spoken(context.now, providers[0].zone),
            "slots": [slot.shown() for slot in slots],
            "note": note,
        }

    async def book(self, arguments: Book, context: ToolContext) -> dict[str, Any]:
        """Book an appointment at a free time, once the person has agreed to service, day and time. If it returns an
        error, nothing was booked: say why, and offer its `slots`."""
        before, after = await self.to_book(arguments, context)
        return {"status": "booked" if before is None else "already booked", "appointment": after.shown()}

    async def to_book(self, arguments: Book, context: ToolContext) -> tuple[Appointment | None, Appointment]:
        async with context.transaction() as connection:
            service = named_service(await self._repository.services(connection), arguments.service)
            providers = offering(service, arguments.provider)
            about = About(name=arguments.name, note=arguments.note)
            request = BookingRequest(service=service, providers=providers, wanted=arguments.start, about=about)
            bookings = self._service(connection, context)
            if appointment := await bookings.same(request):
                return appointment, appointment
            return None, await bookings.place(request)

    async def list_appointments(self, arguments: ListAppointments, context: ToolContext) -> dict[str, Any]:  # noqa: ARG002  # a tool's shape
        """List this person's upcoming appointments, the next one first, with their references."""
        async with context.transaction() as connection:
            upcoming = await self._repository.upcoming(connection, context.device_id, context.now)
        return {"appointments": [appointment.shown() for appointment in upcoming]}

    async def move(self, arguments: Move, context: ToolContext) -> dict[str, Any]:
        """Move an upcoming appointment of this person to another free time; it keeps its reference. If this returns an
        error, the appointment stays where it was: say why, and offer its `slots`."""
        before, after = await self.to_move(arguments, context)
        return {"status": "already at that time" if before == after else "moved", "appointment": after.shown()}

    async def to_move(self, arguments: Move, context: ToolContext) -> tuple[Appointment | None, Appointment]:
        async with context.transaction() as connection:
            bookings = self._service(connection, context)
            appointment = await bookings.changeable(arguments.reference)
            if not appointment.booked:
                raise ToolRefused(
                    f"{appointment} was cancelled. Book a new one instead.",
                    code="cancelled",
                    appointment=appointment.shown(),
                )
            service = named_service(await self._repository.services(connection), appointment.service)
            providers = offering(service, arguments.provider or appointment.provider.name)
            request = BookingRequest(
                service=service,
                providers=providers,
                wanted=arguments.start,
                about=appointment.about,
                moved=appointment,
            )
            if request.changes_nothing:
                return appointment, appointment
            # Taken out first, then placed: two that swap times each find the other's time taken, and neither waits.
            await self._repository.take_out(connection, context.device_id, appointment.appointment_id)
            return appointment, await bookings.place(request)

    async def cancel(self, arguments: Cancel, context: ToolContext) -> dict[str, Any]:
        """Cancel an upcoming appointment of this person, once they have said that they want that."""
        before, after = await self.to_cancel(arguments, context)
        return {"status": "cancelled" if before is None else "already cancelled", "appointment": after.shown()}

    async def to_cancel(self, arguments: Cancel, context: ToolContext) -> tuple[Appointment | None, Appointment]:
        async with context.transaction() as connection:
            appointment = await self._service(connection, context).changeable(arguments.reference)
            cancelled = await self._repository.cancel(connection, context.device_id, appointment.appointment_id)
        return None if cancelled else appointment, appointment

    def _service(self, connection: Connection, context: ToolContext) -> BookingService:
        return BookingService(
            repository=self._repository,
            connection=connection,
            device_id=context.device_id,
            bookable=self._rules.bookable(context.now),
            limits=self._rules.limits,
        )


@dataclass(frozen=True, kw_only=True)
class _Search:
    """One search for free slots; returns them, with a note for the model if they are not what it asked for."""

    calendars: tuple[ProviderCalendar, ...]
    service: Service
    bookable: Bookable
    part: PartOfDay

    def anywhere(self) -> tuple[list[Slot], str | None]:
        return self._from(self.bookable.since)

    def around(self, day: date) -> tuple[list[Slot], str | None]:
        self._check(day)
        slots = slots_on(self.calendars, day, visit=self.service.visit, bookable=self.bookable, part=self.part)
        if slots:
            return slots, None
        midnight = datetime.combine(day, time.min)
        slots, note = self._from(min(first_instant(midnight, calendar.zone) for calendar in self.calendars))
        return slots, note or f"Nothing that fits is free on {day_name(day)}; these are the next free times."

    def _check(self, day: date) -> None:
        """The day must be possible in at least one provider's time zone: around midnight they differ about the date."""
        objections: list[Unbookable] = []
        for calendar in self.calendars:
            try:
                calendar.check_day(day, bookable=self.bookable)
            except Unbookable as objection:
                objections.append(objection)
        if len(objections) == len(self.calendars):
            raise ToolRefused(str(objections[0]), code=objections[0].reason)

    def _from(self, since: datetime) -> tuple[list[Slot], str | None]:
        slots = next_slots(
            self.calendars, visit=self.service.visit, since=since, bookable=self.bookable, part=self.part
        )
        if slots:
            return slots, None
        return slots, (f"Nothing that fits is free in the {SEARCH.days} days from {day_name(since)}.")


def _offer(service: Service) -> dict[str, Any]:
    return {
        "service": service.name,
        "minutes": service.minutes,
        "providers": [provider.name for provider in service.providers],
    }
