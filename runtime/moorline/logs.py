"""Where the command line shows its log. Elsewhere logs are the application's to direct, by the logger `moorline`."""

import logging

LINE = "%(levelname)s %(name)s: %(message)s"


def show_logs(level: str, *, quiet: bool = False) -> None:
    """Writes Moorline's log to standard error from now on; if `quiet`, without INFO, unless DEBUG is asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE))
    if quiet and level == "INFO":
        handler.setLevel(logging.WARNING)
    logger = logging.getLogger("moorline")
    logger.addHandler(handler)
    logger.setLevel(level)
