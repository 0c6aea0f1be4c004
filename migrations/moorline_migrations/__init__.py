"""The schema of Moorline: its versions, and what brings a database to the newest."""

from moorline_migrations.runner import Status, apply, check, migrate, script, status
from moorline_migrations.versions import Version

__all__ = ["Status", "Version", "apply", "check", "migrate", "script", "status"]
