"""How a database is named: one spelling of the DSN for everything that connects."""

import re
from urllib.parse import parse_qsl, urlencode

from moorline_migrations.errors import ConfigurationError

_DSN = re.compile(r"postgres(?:ql)?(?:\+\w+)?://(?P<address>[^?]*)(?:\?(?P<query>.*))?")
_SQLALCHEMY_ONLY = {"prepared_statement_cache_size", "prepared_statement_name_func"}


def asyncpg_dsn(dsn: str) -> str:
    """The DSN as asyncpg takes it. SQLAlchemy's spelling `postgresql+asyncpg://…?ssl=require` is understood, too.

    SQLAlchemy's own options are left out. Raises `ConfigurationError` for anything but a PostgreSQL URL; the error
    quotes none of it.
    """
    match = _DSN.fullmatch(dsn.strip())
    if match is None:
        raise ConfigurationError("DATABASE_URL must look like postgresql://user:password@host:5432/name")
    options = [
        # `ssl` is no setting that a session may change, so it can only mean this.
        ("sslmode" if name == "ssl" else name, value)
        for name, value in parse_qsl(match["query"] or "", keep_blank_values=True)
        if name not in _SQLALCHEMY_ONLY
    ]
    return f"postgresql://{match['address']}" + (f"?{urlencode(options, safe='/')}" if options else "")
