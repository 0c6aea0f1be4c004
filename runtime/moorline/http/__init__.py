"""The HTTP face: `router(moorline)` for an app of one's own, and what `moorline serve` runs. Needs the extra `http`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline.http.routes import router as router
    from moorline.http.settings import HttpSettings as HttpSettings
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(
        __name__, {"moorline.http.routes": ("router",), "moorline.http.settings": ("HttpSettings",)}
    )
