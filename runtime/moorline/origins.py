"""Where an error was raised, so that somebody who sees its words only can find the place."""

from __future__ import annotations

import sys
import traceback
from itertools import chain
from pathlib import Path
from types import FrameType

_NOT_THE_TEAMS = {"moorline", "moorline_agents", "moorline_checkpoint", "moorline_migrations", *sys.stdlib_module_names}


def origin(error: BaseException) -> str:
    """The last place in code of the team's own that the error came through, or if there is none, where it was raised;
    nothing of what it says, which may be what somebody wrote."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    ours = [(frame, line) for frame, line in frames if _is_the_teams(frame)]
    for frame, line in chain(reversed(ours), reversed(frames)):
        return f"{Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_name}"
    return "at an unknown place"


def _is_the_teams(frame: FrameType) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return package not in _NOT_THE_TEAMS and "site-packages" not in frame.f_code.co_filename
