"""The schema of Moorline: its components, their versions, and what brings a database to the newest."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline_migrations.components import (
        CORE as CORE,
    )
    from moorline_migrations.components import (
        SCHEDULING as SCHEDULING,
    )
    from moorline_migrations.components import (
        SHIPPED as SHIPPED,
    )
    from moorline_migrations.components import (
        Migrations as Migrations,
    )
    from moorline_migrations.runner import (
        Status as Status,
    )
    from moorline_migrations.runner import (
        apply as apply,
    )
    from moorline_migrations.runner import (
        check as check,
    )
    from moorline_migrations.runner import (
        migrate as migrate,
    )
    from moorline_migrations.runner import (
        script as script,
    )
    from moorline_migrations.runner import (
        status as status,
    )
    from moorline_migrations.versions import Version as Version
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "moorline_migrations.components": ("CORE", "SCHEDULING", "SHIPPED", "Migrations"),
            "moorline_migrations.runner": ("Status", "apply", "check", "migrate", "script", "status"),
            "moorline_migrations.versions": ("Version",),
        },
    )
