"""PostgreSQL in the data folder, for whoever has none: a server a folder, shared by its users."""

from moorline.embedded.sharing import embedded_dsn

__all__ = ["embedded_dsn"]
