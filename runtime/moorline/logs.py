"""Logging of the command line. Other programs configure the logger `moorline` themselves."""

import logging

LINE = "%(levelname)s %(name)s: %(message)s"


def show_logs(level: str, *, quiet: bool = False) -> None:
    """Writes Moorline's log to standard error from now on. `quiet` leaves out INFO, unless the level is DEBUG."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE))
    if quiet and level == "INFO":
        handler.setLevel(logging.WARNING)
    logger = logging.getLogger("moorline")
    logger.addHandler(handler)
    logger.setLevel(level)
