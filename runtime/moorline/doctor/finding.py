"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    """`fail`: turns do not run, or will not for long. `warn`: they do, but something has to be done. `skipped`: there
    was nothing to look at."""
    seen: str
    todo: str = ""
    """What to do about it."""
