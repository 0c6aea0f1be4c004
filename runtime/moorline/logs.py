"""Logging of the command line. Other programs configure the logger `moorline` themselves."""

import logging
from typing import Any

from moorline_migrations.plain import lines, one_line

LINE = "%(levelname)s %(name)s: %(message)s"


class _Plain(logging.Formatter):
    """Each message is one line, and a traceback has no control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as logging calls it
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as logging calls it
        return lines(super().formatException(ei))


def show_logs(level: str, *, quiet: bool = False) -> None:
    """Writes Moorline's log to standard error from now on. `quiet` leaves out INFO, unless the level is DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain(LINE))
    if quiet and level == "INFO":
        handler.setLevel(logging.WARNING)
    logger = logging.getLogger("moorline")
    logger.addHandler(handler)
    logger.setLevel(level)
