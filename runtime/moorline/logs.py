"""Where the command line shows its log. Elsewhere logs are the application's to direct, by the logger `moorline`."""

import logging

LINE = "%(levelname)s %(name)s: %(message)s"


def show_logs(level: str, *, least: str = "DEBUG") -> None:
    """Writes Moorline's log to standard error from now on, as far as it is of `level` and of `least`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE))
    handler.setLevel(least)
    logger = logging.getLogger("moorline")
    logger.addHandler(handler)
    logger.setLevel(level)
