"""The schema of Moorline: its components, their versions, and what brings a database to the newest."""

from moorline_migrations.components import CORE, SCHEDULING, SHIPPED, Migrations
from moorline_migrations.runner import Status, apply, check, migrate, script, status
from moorline_migrations.versions import Version

__all__ = [
    "CORE",
    "SCHEDULING",
    "SHIPPED",
    "Migrations",
    "Status",
    "Version",
    "apply",
    "check",
    "migrate",
    "script",
    "status",
]
