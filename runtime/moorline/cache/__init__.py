"""Sessions in Redis, for readers that shall not ask PostgreSQL: `SessionReader`. Needs the extra `redis`.

Redis decides nothing. It is written after the database was, and whoever asks it goes on without it if it is gone, slow
or wrong.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moorline.cache.reader import SessionReader as SessionReader
else:
    from moorline_migrations.lazy import lazy

    __all__, __getattr__, __dir__ = lazy(__name__, {"moorline.cache.reader": ("SessionReader",)})
