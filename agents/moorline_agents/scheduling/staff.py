"""The calendar as the staff see it: everybody's appointments, for their screens and for reminders."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from moorline_agents.scheduling.repository import AppointmentRepository, StaffAppointment

if TYPE_CHECKING:
    from moorline_agents.tools import Connection


_DAY = timedelta(days=1)  # wider than any UTC offset
_FIRST, _LAST = date.min + _DAY, date.max - 2 * _DAY


class Calendar:
    """What is booked in the tables of `schema`, for staff and reminders, and never for a model: it knows no device.

    `connection` is one of asyncpg's, or what a tool gets from `ToolContext.transaction`; it needs no more rights than
    the application has. Raises `ConfigurationError` for a schema name that is not valid.
    """

    def __init__(self, connection: Connection, *, schema: str = "public") -> None:
        self._connection = connection
        self._repository = AppointmentRepository(schema)

    async def appointments(self, day: date) -> list[StaffAppointment]:
        """The appointments that begin on the day, each in its provider's time zone, by time: booked ones, and cancelled
        ones (`appointment.booked` is false), which have an empty `device_id` if the person was erased since. Raises
        `ValueError` for a moment instead of a day, which would be another day elsewhere."""
        if isinstance(day, datetime):
            raise ValueError(f"Appointments are listed by day, such as {day.date()!r}, not by moment.")  # noqa: TRY004
        midnight = datetime.combine(min(max(day, _FIRST), _LAST), time.min, UTC)
        found = await self._repository.on(self._connection, midnight - _DAY, midnight + 2 * _DAY)
        return [each for each in found if each.appointment.day == day]
