"""PostgreSQL in the data folder, for those who have none: one server per folder, shared by its users."""

from moorline.embedded.sharing import embedded_dsn

__all__ = ["embedded_dsn"]
