"""The scheduling agent: finds, books, moves and cancels appointments in PostgreSQL."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline_agents.scheduling.agent import scheduling as scheduling
    from moorline_agents.scheduling.booking import Limits as Limits
    from moorline_agents.scheduling.repository import StaffAppointment as StaffAppointment
    from moorline_agents.scheduling.staff import Calendar as Calendar
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "moorline_agents.scheduling.agent": ("scheduling",),
            "moorline_agents.scheduling.booking": ("Limits",),
            "moorline_agents.scheduling.repository": ("StaffAppointment",),
            "moorline_agents.scheduling.staff": ("Calendar",),
        },
    )
