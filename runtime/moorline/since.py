"""From when on figures are counted."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from moorline.errors import ConfigurationError

Since = str | datetime | date | timedelta

LONGEST = timedelta(days=36_500)

_SPAN = re.compile(r"(\d{1,9})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def since_in(given: Since) -> datetime | timedelta:
    """A moment with a time zone, or how long ago it was.

    Text is a span such as `7d`, `12h` or `2w`, or a date or moment as in ISO 8601, which without a time zone is in UTC.
    Raises `ConfigurationError` for anything else, and for what is more than a century ago or in the future by this
    process's clock."""
    found = _read(given) if isinstance(given, str) else given
    if isinstance(found, date) and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    if isinstance(found, datetime) and found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    now = datetime.now(UTC)
    ago = now - found if isinstance(found, datetime) else found
    if not isinstance(found, datetime | timedelta) or ago is None or not timedelta() <= ago <= LONGEST:
        raise ConfigurationError(
            f"Figures are counted since a span before now, such as 7d, 12h or 2w, or since a date such as "
            f"{now - timedelta(days=7):%Y-%m-%d}, within a century before now; not {str(given)[:60]!r}."
        )
    return found


def _read(text: str) -> datetime | timedelta | None:
    try:
        if span := _SPAN.fullmatch(text.strip()):
            return timedelta(**{_UNITS[span[2]]: int(span[1])})
        return datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        return None
